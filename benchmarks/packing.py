"""Packing compared with decoding and resizing alone, on all cores: `python -m benchmarks.packing`.

Both alternately read the same generated 250x250 JPEGs, of the size of a photograph in bytes. The result is the median
of the ratios. `--names FILE.mat` takes `--count` image names from CACD's metadata.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.data.readers.folders import FolderFiles, decode
from agebench.data.resize import Resize
from agebench.data.sources.drawn_faces.person import sample_face
from agebench.data.sources.drawn_faces.photo import draw_photo
from agebench.data.sources.folder import Folder
from agebench.data.store import Store

RESULTS = Path(__file__).parent / "results"
SIDE = 250
NOISE = 9  # standard deviation in levels: with it a drawn face has 20 KB, as a photograph


def write_images(folder: Path, names: list[str]) -> None:
    """Write a different JPEG for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not (folder / name).exists()]
    shares = [missing[i :: os.cpu_count()] for i in range(os.cpu_count() or 1)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_write_share, [folder] * len(shares), shares, range(len(shares))))


def _write_share(folder: Path, names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = [sample_face(0, identity, long_hair=identity % 2 == 0) for identity in range(40)]
    faces = [
        np.asarray(draw_photo(person, rng.uniform(14, 63), rng, SIDE).convert("RGB"), np.int16) for person in people
    ]
    noise = [rng.normal(0, NOISE, (SIDE, SIDE, 3)).astype(np.int16) for _ in range(16)]
    for name in names:
        face = faces[rng.integers(len(faces))] + np.roll(noise[rng.integers(len(noise))], rng.integers(SIDE), axis=0)
        Image.fromarray(face.clip(0, 255).astype(np.uint8)).save(folder / name, quality=88)


def limit(folder: Path, names: list[str], resize: Resize) -> float:
    """Return images/s of decoding and resizing with a thread per core (Pillow releases the GIL); nothing is kept."""
    files = FolderFiles(folder)

    def decode_chunk(chunk: list[str]) -> int:
        return sum(len(resize(decode(files.read(name)))) for name in chunk)

    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode_chunk, [names[first : first + 16] for first in range(0, len(names), 16)]))
    return len(names) / (time.perf_counter() - start)


def pack(root: Path, rows: int, resize: Resize) -> float:
    """Return images/s of filling a new store, without listing the folder."""
    source = Folder(str(root))
    count = len(source.records())
    with tempfile.TemporaryDirectory(dir=root.parent) as cache:
        store = Store(Path(cache), "bench", key="", count=count, resize=resize)
        start = time.perf_counter()
        store.fill(source, np.arange(rows))
        return rows / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--folder", type=Path, help="keep the images in this folder for the next time")
    parser.add_argument("--names", type=Path, help="celebrity2000_meta.mat")
    args = parser.parse_args()
    names = [f"{i:06d}.jpg" for i in range(args.count)]
    if args.names:
        from agebench.data.sources.cacd_metadata import read_metadata

        names = [str(name) for name in read_metadata(args.names)["name"][: args.count]]
    folder = args.folder or Path(tempfile.mkdtemp())
    images = folder / "root" / "faces"
    write_images(images, names)
    kilobytes = sum((images / name).stat().st_size for name in names[:1000]) / len(names[:1000]) / 1000
    results = []
    for size in args.sizes:
        resize = Resize(size, 3)
        limit(images, names[:2000], resize)  # warms the page cache for both
        limits, packs = [], []
        for _ in range(args.repeats):
            limits.append(limit(images, names, resize))
            packs.append(pack(folder / "root", len(names), resize))
        ratio = statistics.median(p / one for p, one in zip(packs, limits, strict=True))
        results.append(
            {
                "size": size,
                "images": len(names),
                "kilobytes_an_image": round(kilobytes, 1),
                "limit_images_per_s": round(statistics.median(limits)),
                "pack_images_per_s": round(statistics.median(packs)),
                "ratio": round(ratio, 3),
            }
        )
        print(results[-1], flush=True)
    summary = {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine(), "results": results}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "packing.json").write_text(json.dumps(summary, indent=1) + "\n")
    if args.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
