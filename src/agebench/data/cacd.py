"""CACD, the Cross-Age Celebrity Dataset: 163,446 faces of 2,000 people, 14 to 62 years old.

Source: Chen, Chen, Hsu (2014), https://bcsiriuschen.github.io/CARC/. The files are fetched by hand: see docs/data.md.
"""

import re
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agebench.data.demo import write_demo
from agebench.data.files import find_images, open_image, stamp_files
from agebench.data.records import Array, Records
from agebench.errors import UserError

METADATA = ("celebrity2000_meta.mat", "celebrity2000.mat")
FIELDS = ("age", "identity", "year", "rank", "lfw", "birth")
NAME = re.compile(r"^(\d+)_(.+)_(\d+)\.jpe?g$", re.IGNORECASE)


class CACD:
    """The metadata file and the images beside it.

    Args:
        root: Folder holding `celebrity2000_meta.mat` (MATLAB 5) or `celebrity2000.mat` (MATLAB 7.3), and the images in
            `CACD2000/`, deeper, or right there. Without a metadata file, age and person are read off the file names.
    """

    channels = 3
    targets = ("decade", "age", "bins")

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser()

    def prepare(self) -> None:
        """Raise UserError if there is no image: nobody may download CACD for you."""
        if not self._paths:
            raise UserError(
                f"no CACD images under {self.root}: expected {self.root}/CACD2000/*.jpg and {self.root}/{METADATA[0]}; "
                "see docs/data.md for where to get them, set data.root=FOLDER, or try data=demo"
            )

    def records(self) -> Records:
        """Return a row for each image that the metadata lists, in its order."""
        return self._records

    def present(self) -> Array:
        """Return which rows have a file, bool, shape (N,); spelling may differ in Unicode form and case of .jpg."""
        return np.array([_key(str(name)) in self._paths for name in self._records.names], dtype=bool)

    def open(self, row: int) -> Image.Image:
        """Decode the image of one row."""
        return open_image(self._paths[_key(str(self._records.names[row]))])

    def stamp(self) -> str:
        """Return a hash of the image files' names, sizes and times."""
        return stamp_files(self._paths.values())

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return {_key(path.name): path for path in find_images(self.root)}

    @cached_property
    def _records(self) -> Records:
        for file in METADATA:
            if (self.root / file).is_file():
                fields = read_metadata(self.root / file)
                names = fields.pop("name")
                # The authors' protocol: ranks 1-2 and 3-5, the people whose labels were cleaned, are val and test.
                fields["part"] = np.select([fields["rank"] > 5, fields["rank"] > 2], ["train", "test"], "val")
                return Records(names, fields)
        # In one Unicode form, so that nobody is two people and a list of names is the same on every machine.
        spelled = sorted(unicodedata.normalize("NFC", path.name) for path in self._paths.values())
        matches = [m for m in map(NAME.match, spelled) if m]
        if not matches:
            raise UserError(
                f"no image under {self.root} is named as CACD's are (53_Robin_Williams_0001.jpg), and without "
                f"{METADATA[0]} ages are read off the names: put that file there, or use data=folder or data=table"
            )
        people = [m[2] for m in matches]
        ages = np.array([int(m[1]) for m in matches], dtype=np.int64)
        return Records(np.array([m[0] for m in matches]), {"age": ages, "identity": np.array(people)})


class Demo(CACD):
    """Drawn faces in CACD's layout, written on first use and then read as CACD is.

    Args:
        root: Folder that is or becomes the data set.
        people: How many identities.
        images: How many images of them together.
        seed: Decides who they are.
    """

    def __init__(self, root: str, *, people: int = 150, images: int = 3000, seed: int = 0) -> None:
        super().__init__(root)
        self.people, self.images, self.seed = people, images, seed

    def prepare(self) -> None:
        """Draw the faces, unless they are there."""
        write_demo(self.root, people=self.people, images=self.images, seed=self.seed)


def read_metadata(path: Path) -> dict[str, Array]:
    """Read CACD's metadata, MATLAB 5 by scipy or MATLAB 7.3 by h5py; its feature array is never touched.

    Returns:
        `name`, str, and the FIELDS, int64, each of shape (N,).

    Raises:
        UserError: If the file is neither, or is cut short.
    """
    import h5py
    import scipy.io

    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                data: Any = file["celebrityImageData"]
                fields = {field: data[field][()].ravel().astype(np.int64) for field in FIELDS}
                fields["name"] = np.array(
                    [file[ref][()].tobytes().decode("utf-16-le") for ref in data["name"][()].flat]
                )
        else:
            data = scipy.io.loadmat(path, variable_names=["celebrityImageData"])["celebrityImageData"][0, 0]
            fields = {field: data[field].ravel().astype(np.int64) for field in FIELDS}
            fields["name"] = np.array([str(cell[0]) for cell in data["name"].ravel()])
    except Exception as error:  # a damaged file makes the two parsers raise nearly anything
        raise UserError(
            f"cannot read {path} as CACD's metadata ({error}): download it again, see docs/data.md"
        ) from error
    sizes = {len(column) for column in fields.values()}
    if len(sizes) != 1:
        raise UserError(f"{path}: its fields differ in length ({sorted(sizes)}): download it again, see docs/data.md")
    return fields


def _key(name: str) -> str:
    """Spell a file name the one way both sides are compared in: macOS unpacks archives to NFD."""
    return unicodedata.normalize("NFC", name).casefold()
