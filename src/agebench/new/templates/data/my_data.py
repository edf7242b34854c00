"""A data set that takes part in agebench as data=my_data: images of a folder, with ages and people in their names."""

import re
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.data.readers.folders import decode
from agebench.data.records import Array, Records
from agebench.errors import UserError

NAME = re.compile(r"(?P<age>\d+)_(?P<person>\w+)_\d+\.png")  # such as 34_p07_2.png


class MyData:
    """Images whose file names are AGE_PERSON_NUMBER.png.

    Args:
        root: The folder of the images; `data.root` of the config.
    """

    channels = 3  # 1 for grey images
    targets = ("age", "decade", "bins")  # the default first; `class` needs the column `class` and class_names
    path_is_identity = True  # False for a published data set, which is the same in every folder

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser()

    def prepare(self) -> None:
        """Draw images, so that the template works. Replace it: raise UserError if the images are not there."""
        if not self.root.exists():
            _draw(self.root)
        if not self._names:
            raise UserError(f"data.root={self.root} has no images named AGE_PERSON_NUMBER.png")

    def records(self) -> Records:
        """Return one row per image: its age, and the person, whom train and test must not share."""
        found = [NAME.fullmatch(name) for name in self._names]
        ages = np.array([int(each["age"]) for each in found if each], dtype=np.int64)
        people = np.array([each["person"] for each in found if each])
        return Records(np.array(self._names), {"age": ages, "identity": people})

    def present(self) -> Array:
        """Return which images exist: all, because the names are those of the files."""
        return np.ones(len(self._names), dtype=bool)

    def open(self, row: int) -> Image.Image:
        """Return one image. `decode` raises BrokenImageError for a damaged file, which agebench leaves out."""
        return decode((self.root / self._names[row]).read_bytes())

    def stamps(self, rows: Array) -> Array:
        """Return a number per image that changes if the file changes, so that its pixels are packed again."""
        return np.array([(self.root / self._names[row]).stat().st_mtime_ns for row in rows], dtype=np.uint64)

    def reading_order(self, rows: Array) -> Array:
        """Return the rows in the order in which reading is fastest: unchanged, because each image is a file."""
        return rows

    @cached_property
    def _names(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*.png") if NAME.fullmatch(path.name))


def _draw(folder: Path) -> None:
    """Draw 400 images of 40 people; the older the person, the darker the image."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(400):
        age, person = int(rng.integers(15, 65)), number % 40
        pixels = np.clip(rng.normal(255 - 3 * age, 20, (16, 16, 3)) + person % 5, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{age}_p{person:02d}_{number}.png")
