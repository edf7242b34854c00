"""Cases of CACD's metadata, and of MNIST's idx files."""

import gzip
import random
import shlex
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import numpy as np
import scipy.io
import scipy.sparse
from materials import AGES, SMALL, Case, line, use

Random = random.Random

METADATA_LINES = [f"{verb} {shlex.join(AGES)}" for verb in ("audit", "audit", "prepare", "audit listed=true")]


def _mat_bytes(spoil: Callable[[Random, bytes], bytes]) -> Case:
    def case(rng: Random) -> list[str]:
        use("faces", "v73.mat", "v5_plain.mat")
        path = Path("faces/celebrity2000_meta.mat")
        source = rng.choice((path, Path("v73.mat"), Path("v5_plain.mat")))
        path.write_bytes(spoil(rng, source.read_bytes()))
        return line(rng, *METADATA_LINES)

    return case


def mat_field(rng: Random) -> list[str]:
    """Write MATLAB 5 metadata with one odd field."""
    use("faces")
    path = Path("faces/celebrity2000_meta.mat")
    data = scipy.io.loadmat(path)["celebrityImageData"][0, 0]
    fields = {name: data[name] for name in data.dtype.names}
    name, n = rng.choice(list(fields)), len(fields["age"])
    odd: list[Any] = [
        np.full((n, 1), np.nan), np.full((n, 1), 1e300), np.full((n, 1), -1), np.zeros((n, 1)), np.zeros((0, 0)),
        np.zeros((n - 1, 1)), np.zeros((n, 2)), np.zeros((1, n)), np.full((n, 1), 0.5), np.full((n, 1), 1j),
        "text", {"a": 1}, np.array([["x"]] * n, dtype=object), np.array([[np.array([1, 2])]] * n, dtype=object),
        np.full((n, 1), 2**63, dtype=np.uint64), np.ones((n, 1), dtype=bool), scipy.sparse.eye(n).tocsc(),
        np.array([["20_A_0001.jpg"]] * n, dtype=object), np.array([["../20_A_0001.jpg"]] * n, dtype=object),
    ]  # fmt: skip
    fields[name] = rng.choice(odd)
    if rng.random() < 0.2:
        del fields[name]
    scipy.io.savemat(path, {rng.choice(("celebrityImageData",) * 5 + ("other",)): fields})
    return line(rng, *METADATA_LINES)


def odd_names(rng: Random) -> list[str]:
    """Rename face images, without or with metadata."""
    use("faces")
    if rng.random() < 0.7:
        Path("faces/celebrity2000_meta.mat").unlink()
    for path in sorted(Path("faces/CACD2000").iterdir())[: rng.choice((1, 5, 48))]:
        name = rng.choice(
            ("999_A_0001.jpg", "x.jpg", "20__1.jpg", "20_あ_1.JPG", "20_A_1.png", "000_A_1.jpg", "20_e\u0301_1.jpg",
             "20_\udcff_1.jpg", "20_a\nb_1.jpg", f"20_A_{10**30}.jpg", "20_=1+1_1.jpg", f"{rng.randrange(99)}_B_1.jpg")
        )  # fmt: skip
        path.rename(path.with_name(name))
    return line(rng, *METADATA_LINES, f"train {shlex.join([*AGES, *SMALL])} model=mlp")


MATS = {name: _mat_bytes(spoil) for name, spoil in damage.BYTES.items()} | damage.named(mat_field, odd_names)


def _idx(spoil: Callable[[Random, bytes], bytes]) -> Case:
    def case(rng: Random) -> list[str]:
        use("mnist")
        path = rng.choice(sorted(Path("mnist").iterdir()))
        raw = path.read_bytes()
        if rng.random() < 0.5:
            path.write_bytes(spoil(rng, raw))
        else:
            damaged = spoil(rng, gzip.decompress(raw))
            path.write_bytes(gzip.compress(damaged) if rng.random() < 0.5 else damaged)
        return mnist_line(rng)

    return case


def mnist_line(rng: Random) -> list[str]:
    mnist = "data=mnist data.root=mnist data.source.download=false"
    return line(rng, f"prepare {mnist}", f"audit {mnist}", f"train {mnist} model=mlp {shlex.join(SMALL)}")


def idx_header(rng: Random) -> list[str]:
    """Change the type or a size in the header of an idx file."""
    use("mnist")
    path = rng.choice(sorted(Path("mnist").iterdir()))
    raw = bytearray(gzip.decompress(path.read_bytes()))
    at = rng.choice((2, 3, 4, 8))
    if at < 4:
        raw[at] = rng.choice((0, 1, 3, 9, 13, 255))
    else:
        raw[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 27, 2**31 - 1, 2**31, 2**32 - 1)))
    path.write_bytes(raw)
    return mnist_line(rng)


def idx_exchanged(rng: Random) -> list[str]:
    use("mnist")
    first, second = rng.sample(sorted(Path("mnist").iterdir()), 2)
    shutil.copy(first, second)
    return mnist_line(rng)


IDX = {name: _idx(spoil) for name, spoil in damage.BYTES.items()} | damage.named(idx_header, idx_exchanged)
