"""CACD, the Cross-Age Celebrity Dataset: 163,446 faces of 2,000 people, 14 to 62 years old.

Source: Chen, Chen, Hsu (2014), https://bcsiriuschen.github.io/CARC/. The files are fetched by hand: see docs/data.md.
"""

import logging
import os
from functools import cached_property
from pathlib import Path

import numpy as np

from agebench.data.readers.archives import ARCHIVE_SUFFIXES, check_there, open_archive
from agebench.data.readers.folders import Files, FileSource, FolderFiles, find_images, nfc
from agebench.data.readers.members import ARCHIVES
from agebench.data.records import Array, Records
from agebench.data.sources.cacd_metadata import METADATA, MOST_YEARS, NAME, no_age, read_metadata
from agebench.data.sources.demo import write_demo
from agebench.data.sources.name_matching import match_names
from agebench.errors import NoImagesError, UserError

log = logging.getLogger(__name__)

UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".aria2", ".tmp")


class CACD(FileSource):
    """The metadata file and the images beside it, unpacked or not.

    Args:
        root: Folder holding the images in `CACD2000/`, deeper, right there, or still in `CACD2000.tar.gz`; or that
            archive. `celebrity2000_meta.mat` (MATLAB 5) or `celebrity2000.mat` (MATLAB 7.3) lies in the same folder, in
            one within it, or in the one around it; without either, age and person are read off the file names.
        cache: Folder for what is learnt of a large archive, so that it is listed once.
    """

    channels = 3
    targets = ("decade", "age", "bins")
    path_is_identity = False

    def __init__(self, root: str, *, cache: str | None = None) -> None:
        self.root = Path(root).expanduser()
        self.cache = None if cache is None else Path(cache).expanduser()

    def prepare(self) -> None:
        """Raise UserError if there is no image: nobody may download CACD for you."""
        if not self._found:
            raise self._nothing()
        if not self.present().any():
            raise NoImagesError(
                f"{self._metadata} lists none of the {len(self._found):,} images under {self.root}: they are named as "
                f"{self._found[0]!r} and not as {self._records.names[0]}; set data.root to CACD's own images"
            )

    def records(self) -> Records:
        """Return a row for each image that the metadata lists, or that is there if there is none, by name."""
        return self._records

    @cached_property
    def _records(self) -> Records:
        if self._metadata is None:
            return self._read_off_names()
        fields = read_metadata(self._metadata)
        order = np.argsort(fields["name"])
        fields = {field: values[order] for field, values in fields.items()}
        names = fields.pop("name")
        ages, people = _ages_and_people(names)
        differ = int((ages != fields["age"]).sum())
        if differ:
            images = "image has" if differ == 1 else "images have"
            log.warning("%s %s another age in %s than by name: it holds", f"{differ:,}", images, self._metadata)
        if _group_alike(people, fields["identity"]):
            fields["identity"] = people
        else:
            log.warning("%s numbers people otherwise than the images' names do: the numbers hold", self._metadata)
            fields["identity"] = fields["identity"].astype(str)
        # The authors' protocol: ranks 1-2 and 3-5, the people whose labels were cleaned, are val and test.
        fields["part"] = np.select([fields["rank"] > 5, fields["rank"] > 2], ["train", "test"], "val")
        return Records(names, fields)

    def _read_off_names(self) -> Records:
        spelled = {_as_listed(path) for path in self._found}
        names = np.array(sorted(name for name in spelled if NAME.fullmatch(name)))
        if not self._found:
            raise self._nothing()
        if len(names) == 0:
            raise UserError(
                f"no image under {self.root} is named as CACD's are (53_Robin_Williams_0001.jpg), and without "
                f"{METADATA[0]} ages are read off the names: put that file there, or use data=folder or data=table"
            )
        for name in _find_unfinished(self._folder):
            if name.lower().startswith(METADATA):
                log.warning(
                    "%s is a download that is not finished: ages are read off names, and no rank is known", name
                )
        ages, people = _ages_and_people(names)
        if len(unfit := no_age(ages)):
            name, age = names[unfit[0]], ages[unfit[0]]
            raise UserError(
                f"{name} under {self.root} would show somebody of {age} years, at most {MOST_YEARS} are believed: "
                f"take it away, or put {METADATA[0]} there, which has the ages"
            )
        return Records(names, {"age": ages, "identity": people})

    def _nothing(self) -> UserError:
        has = [] if self._metadata is None else [f"the metadata {self._metadata.name}"]
        has += [f"{name}, a download that is not finished" for name in _find_unfinished(self.root)]
        has += _find_unread(self.root)
        only = f", only {' and '.join(has)}" if has else ""
        beside = f", with {METADATA[0]} beside it" if self._metadata is None else ""
        return NoImagesError(
            f"no CACD images under {self.root}{only}: expected {self.root}/CACD2000/*.jpg or "
            f"{self.root}/CACD2000.tar.gz (or .tgz, .tar, .zip){beside}; see docs/data.md for "
            "where to get them, set data.root=FOLDER, or try data=demo"
        )

    @cached_property
    def _folder(self) -> Path:
        return self.root if self.root.is_dir() else self.root.parent

    @cached_property
    def _metadata(self) -> Path | None:
        """The metadata file in the data's own folder, in one within it, or in the one around it."""
        if not self.root.exists():
            return None
        own = self._folder
        folders = [own, *sorted(folder for folder in own.glob("*/") if not folder.name.startswith("."))]
        if own == self.root:
            folders.append(self.root.absolute().parent)
        for folder in folders:
            spelled = {name.lower(): name for name in reversed(_names_in(folder))}  # in any case, small letters first
            for file in METADATA:
                if file in spelled and (folder / spelled[file]).is_file():
                    return folder / spelled[file]
        return None

    @cached_property
    def _files(self) -> Files:
        check_there(self.root)
        if self.root.suffix.lower() == ".mat" and not self.root.is_dir():
            raise UserError(
                f"data.root={self.root} is no folder of images: give the folder that holds them and the metadata, "
                f"data.root={self.root.parent}"
            )
        archive = self.root if self.root.is_file() else _find_archive(self.root)
        return FolderFiles(self.root) if archive is None else open_archive(archive, cache=self.cache)

    @cached_property
    def _found(self) -> list[str]:
        return self._files.names()

    @cached_property
    def _file_names(self) -> list[str | None]:
        return match_names(self._records.names.tolist(), self._found)


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


def _find_archive(folder: Path) -> Path | None:
    """Return the archive in a folder that holds no unpacked image."""
    found = [
        folder / name
        for name in _names_in(folder)
        if name.lower().endswith(ARCHIVE_SUFFIXES) and not name.startswith(".") and (folder / name).is_file()
    ]
    if not found:
        return None
    if any(NAME.fullmatch(name.rpartition("/")[2]) for name in find_images(folder)):
        log.info("%s is left alone, for there are unpacked images beside it", found[0])
        return None
    named = [path for path in found if path.name.lower().startswith("cacd2000")] or found
    if len(named) > 1:
        raise UserError(
            f"{folder} holds no CACD image and {len(named)} archives, {' and '.join(path.name for path in named)}: "
            "leave the one that has the images there, or set data.root to it"
        )
    return named[0]


def _find_unfinished(folder: Path) -> list[str]:
    """Return the names of downloads in a folder that browsers and download tools have not ended."""
    return [name for name in _names_in(folder) if name.lower().endswith(UNFINISHED)]


def _find_unread(folder: Path) -> list[str]:
    """Return what is said of the archives in a folder that are of no kind that is read, or links that lead nowhere."""
    told = []
    for name in _names_in(folder):
        path = folder / name
        if path.is_symlink() and not path.exists():
            told.append(f"{name}, a link that leads nowhere")
        elif name.lower().endswith(ARCHIVES) and not name.startswith(".") and path.is_file():
            told.append(f"{name}, an archive of a kind that is not read (unpack it)")
    return told


def _names_in(folder: Path) -> list[str]:
    """Return what lies in a folder, sorted, or nothing if it cannot be listed: find_images says so."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  # a Path for each of 163,446 costs seconds
    except OSError:
        return []


def _as_listed(path: str) -> str:
    """Return an image's name as the metadata has it: without folders, in NFC, the ending in small letters."""
    name = path.rpartition("/")[2]
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8, with which no list of names could be written
        name = name.encode("utf-8", "surrogateescape").decode("latin-1")
    stem, dot, ending = nfc(name).rpartition(".")
    return stem + dot + ending.lower()


def _ages_and_people(names: Array) -> tuple[Array, Array]:
    """Return what names say, each a full match of NAME: years, int64, and people, str, each of shape (N,)."""
    found = [match for match in map(NAME.fullmatch, names.tolist()) if match]
    ages = np.array([int(match[1]) for match in found], dtype=np.int64)
    return ages, np.array([match[2] for match in found])


def _group_alike(people: Array, numbers: Array) -> bool:
    pairs = set(zip(people.tolist(), numbers.tolist(), strict=True))
    return len(pairs) == len(set(people.tolist())) == len(set(numbers.tolist()))
