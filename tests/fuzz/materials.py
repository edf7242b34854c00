"""Small valid inputs of every kind, which the cases copy and damage."""

import gzip
import io
import random
import shlex
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

Case = Callable[[random.Random], list[str]]  # writes its input, returns a command line
base = Path()  # the folder of the material
PEOPLE, IMAGES_EACH = 12, 4
FIELDS = ("age", "identity", "year", "rank", "lfw", "birth")
SMALL = ["trainer.max_epochs=1", "report=false", "logger=csv"]
AGES = ["data=cacd", "data.root=faces", "data.target=age", "data.image_size=16", "data.batch_size=16"]
# Trained runs that the cases start from.
RUNS = {
    "digits_run": ["train", "data=digits", "data.limit=30", *SMALL],
    "ages_run": ["train", *AGES, "model=small_cnn", "head=corn", *SMALL],
}


def make(folder: Path) -> None:
    """Write every input below a folder, except the runs."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{20 + i}_Person_{chr(65 + i)}_{n:04d}.jpg", 20 + i + n, i + 1, 2004 + n, 1 + i % 8, 0, 1984 - i)
        for i in range(PEOPLE)
        for n in range(IMAGES_EACH)
    ]
    faces = folder / "faces"
    (faces / "CACD2000").mkdir(parents=True)
    for name, *_ in rows:
        picture(rng).save(faces / "CACD2000" / name)
    write_v5(faces / "celebrity2000_meta.mat", rows)
    write_v73(folder / "v73.mat", rows)
    write_v5(folder / "v5_plain.mat", rows, compressed=False)

    images = folder / "images"
    images.mkdir()
    lines = ["path,label,identity,split"]
    for i, (_, age, person, *_) in enumerate(rows):
        picture(rng).save(images / f"img{i}.png")
        lines.append(f"images/img{i}.png,{age},p{person},{('train', 'train', 'val', 'test')[i % 4]}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "list.csv").write_text("\n".join(line.replace("path", "name") for line in lines) + "\n", encoding="utf-8")

    classes = folder / "classes"
    for label in ("cat", "dog", "ねこ"):
        (classes / label).mkdir(parents=True)
        for n in range(8):
            picture(rng).save(classes / label / f"{n}.png")
    write_archives(classes, folder)
    write_mnist(folder / "mnist", rng)


def picture(rng: Any) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))


def columns(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Return the fields of CACD's metadata, each of shape (N, 1), and the names as cells."""
    fields: dict[str, Any] = {field: np.array([[row[i + 1]] for row in rows], float) for i, field in enumerate(FIELDS)}
    names = np.empty((len(rows), 1), dtype=object)
    names[:, 0] = [row[0] for row in rows]
    return fields | {"name": names}


def write_v5(path: Path, rows: list[tuple[Any, ...]], *, compressed: bool = True) -> None:
    scipy.io.savemat(path, {"celebrityImageData": columns(rows)}, do_compression=compressed)


def write_v73(path: Path, rows: list[tuple[Any, ...]]) -> None:
    with h5py.File(path, "w") as file:
        data, refs = file.create_group("celebrityImageData"), file.create_group("#refs#")
        fields = columns(rows)
        names = fields.pop("name").ravel()
        for field, values in fields.items():
            data[field] = values.T
        references = np.empty((1, len(names)), dtype=h5py.ref_dtype)
        for i, name in enumerate(names):
            units = np.frombuffer(name.encode("utf-16-le"), dtype=np.uint16)[:, None]
            references[0, i] = refs.create_dataset(f"c{i}", data=units).ref
        data.create_dataset("name", data=references, dtype=h5py.ref_dtype)


def write_archives(classes: Path, folder: Path) -> None:
    files = {str(path.relative_to(classes)): path.read_bytes() for path in sorted(classes.rglob("*.png"))}
    with zipfile.ZipFile(folder / "classes.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
        with tarfile.open(folder / f"classes{suffix}", mode) as tar:  # type: ignore[call-overload]
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def write_mnist(folder: Path, rng: Any) -> None:
    folder.mkdir()
    for part, count in (("train", 60), ("t10k", 20)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), mtime=0))


def use(*names: str) -> None:
    """Copy material into the current folder."""
    for name in names:
        source = base / name
        if source.is_dir():
            shutil.copytree(source, name)
        else:
            shutil.copy(source, name)


def line(rng: random.Random, *lines: str) -> list[str]:
    """Return one of several command lines, split as by a shell."""
    return shlex.split(rng.choice(lines))
