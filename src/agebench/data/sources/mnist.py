"""MNIST: 60,000 + 10,000 handwritten digits, 28x28 grey, from the four published idx files."""

import gzip
import hashlib
import logging
import math
import threading
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.data.keys import DataPath
from agebench.data.readers.download import download as fetch
from agebench.data.records import Array, Records
from agebench.errors import UserError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}  # of the .gz files
FOLDERS = ("", "MNIST/raw", "raw", "mnist", "MNIST", "mnist/raw")  # below the root, in the order they are searched
TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # images of 0 to 9, as published

_log = logging.getLogger(__name__)


class MNIST:
    """The publisher's 60,000 training images, then the 10,000 test images.

    Args:
        root: Folder of the idx files, gzipped or not, in any of the usual layouts (`MNIST/raw/`, `raw/`, flat).
        download: Whether `prepare` downloads missing files into `root`.

    Source:
        LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
    """

    channels = 1
    targets: tuple[str, ...] = ("class",)
    path_is_identity = False

    def __init__(self, root: DataPath, *, download: bool = True) -> None:
        self.root = Path(root).expanduser()
        self.download = download
        self._lock = threading.Lock()
        self._records: Records | None = None
        self._images: Array | None = None  # uint8, (N, 28, 28)

    def prepare(self) -> None:
        """Download the missing files, about 11 MB in all; raise UserError if that fails."""
        for stem, sha256 in SHA256.items():
            if self.download and self._find(stem) is None:
                fetch([f"{mirror}{stem}.gz" for mirror in MIRRORS], self.root / f"{stem}.gz", sha256=sha256)
        self._files()

    def records(self) -> Records:
        """Return all rows, train first, named `train/00000`, with columns `class` (int64) and `part` (str)."""
        with self._lock:
            if self._records is None:
                self._records = self._read_records()
            return self._records

    def present(self) -> Array:
        """Return True for every row, bool, shape (N,)."""
        return np.ones(len(self.records()), dtype=bool)

    def open(self, row: int) -> Image.Image:
        """Return one image, mode L, 28x28."""
        count = len(self.records())
        with self._lock:
            if self._images is None:
                self._images = self._read_images(count)
            images = self._images
        return Image.fromarray(images[row])

    def stamps(self, rows: Array) -> Array:
        """Return a hash of the sizes and modification times of the four files for each row, uint64, shape (n,)."""
        stats = [path.stat() for path in self._files()]
        text = " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
        return np.full(len(rows), int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]), dtype=np.uint64)

    def reading_order(self, rows: Array) -> Array:
        """Return the rows unchanged; all images are read at once."""
        return rows

    def _find(self, stem: str) -> Path | None:
        dotted = stem.replace("-idx", ".idx")
        # Some archives put each file in a folder of the same name.
        names = [f"{folder}{name}" for name in (stem, dotted) for folder in ("", f"{name}/")]
        candidates = (self.root / folder / f"{name}{gz}" for folder in FOLDERS for name in names for gz in ("", ".gz"))
        return next((path for path in candidates if path.is_file()), None)

    def _files(self) -> list[Path]:
        """Return train images, train labels, test images, test labels."""
        found = {stem: self._find(stem) for stem in SHA256}
        missing = [stem for stem, path in found.items() if path is None]
        if missing:
            raise UserError(
                f"no MNIST under {self.root}: expected {', '.join(missing)} (or .gz) there or in MNIST/raw; set "
                "data.root to the folder of the files, or download them with `python -m agebench.prepare data=mnist`"
            )
        return [path for path in found.values() if path is not None]

    def _read_records(self) -> Records:
        _, train_file, _, test_file = self._files()
        train, test = _read_idx(train_file, ()), _read_idx(test_file, ())
        for path, labels in ((train_file, train), (test_file, test)):
            if labels.max(initial=0) > 9:
                raise UserError(
                    f"{path} is not a file of MNIST: expected labels 0 to 9, found {labels.max()}; replace the file"
                )
        if np.bincount(train, minlength=10).tolist() != TRAIN_COUNTS or len(test) != 10_000:
            _log.warning(
                "the files under %s are not the published MNIST (60,000 + 10,000 images): they have %s + %s images or "
                "other class counts, so results cannot be compared with those of MNIST",
                self.root,
                f"{len(train):,}",
                f"{len(test):,}",
            )
        names = [f"{part}/{i:05d}" for part, labels in (("train", train), ("test", test)) for i in range(len(labels))]
        columns = {
            "class": np.concatenate([train, test]).astype(np.int64),
            "part": np.repeat(np.array(["train", "test"]), [len(train), len(test)]),
        }
        return Records(np.array(names), columns, tuple("0123456789"))

    def _read_images(self, count: int) -> Array:
        train_file, _, test_file, _ = self._files()
        images = np.concatenate([_read_idx(train_file, (28, 28)), _read_idx(test_file, (28, 28))])  # (N, 28, 28)
        if len(images) != count:
            raise UserError(
                f"{train_file} and {test_file} contain {len(images):,} images for {count:,} labels; replace all four"
            )
        return images


def _read_idx(path: Path, item: tuple[int, ...]) -> Array:
    """Return the content of an idx file, uint8, shape (n, *item), or raise UserError.

    The layout: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a big-endian uint32,
    then the data. Gzip is detected by its magic number, because browsers may unpack a file and keep its name.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and download it again") from error
    start = 4 + 4 * (1 + len(item))
    expected = bytes([0, 0, 8, 1 + len(item)])
    if raw[:4] != expected or len(raw) < start:
        raise UserError(
            f"{path} contains no idx {'images' if item else 'labels'}: expected {expected.hex()}, then {start - 4} "
            f"bytes of dimensions, found {raw[:4].hex() or 'nothing'} in {len(raw):,} bytes; replace it"
        )
    shape = tuple(np.frombuffer(raw, ">u4", 1 + len(item), offset=4).tolist())
    if shape[1:] != item or len(raw) - start != math.prod(shape):
        raise UserError(
            f"{path} is damaged: expected {' x '.join(map(str, ('n', *item)))} bytes, found dimensions "
            f"{' x '.join(map(str, shape))} and {len(raw) - start:,} bytes; delete it and download it again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
