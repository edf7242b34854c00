"""CACD, the Cross-Age Celebrity Dataset: 163,446 faces of 2,000 people, 14 to 62 years old.

Source: Chen, Chen, Hsu (2014), https://bcsiriuschen.github.io/CARC/.
The files must be downloaded manually: see docs/data.md.
"""

import logging
import os
from functools import cached_property
from pathlib import Path

import numpy as np

from agebench.data.keys import DataPath
from agebench.data.readers.archives import ARCHIVE_SUFFIXES, check_exists, open_archive
from agebench.data.readers.folders import Files, FileSource, FolderFiles, find_images, nfc
from agebench.data.readers.members import ARCHIVES
from agebench.data.records import Array, Records
from agebench.data.sources.cacd_cache import load_columns, store_columns
from agebench.data.sources.cacd_metadata import MAX_AGE, METADATA, NAME, invalid_ages, read_metadata
from agebench.data.sources.name_matching import match_names
from agebench.errors import NoImagesError, UserError
from agebench.schema import Count, Seed

log = logging.getLogger(__name__)

UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".aria2", ".tmp")


class CACD(FileSource):
    """The metadata file and the images, in folders or in an archive.

    Args:
        root: Folder with the images at any depth, for example in `CACD2000/`, or packed in `CACD2000.tar.gz`; or the
            archive itself. `celebrity2000_meta.mat` (MATLAB 5) or `celebrity2000.mat` (MATLAB 7.3) is in the same
            folder, in a direct subfolder or in the parent folder. Without it, ages and identities come from the names.
        cache: Folder for the listing of a large archive and for parsed metadata, so that both are read once.
    """

    channels = 3
    targets = ("decade", "age", "bins")
    path_is_identity = False

    def __init__(self, root: DataPath, *, cache: str | None = None) -> None:
        self.root = Path(root).expanduser()
        self.cache = None if cache is None else Path(cache).expanduser()

    def prepare(self) -> None:
        """Raise UserError if there is no image; CACD must be downloaded manually."""
        if not self._found:
            raise self._no_images()
        if not self.present().any():
            raise NoImagesError(
                f"{self._metadata} lists none of the {len(self._found):,} images under {self.root}: they have names "
                f"like {self._found[0]!r} instead of {self._records.names[0]}; set data.root to the images of CACD"
            )

    def records(self) -> Records:
        """Return a row for each image in the metadata, or for each file if there is no metadata, sorted by name."""
        return self._records

    @cached_property
    def _records(self) -> Records:
        if self._metadata is None:
            return self._records_from_names()
        fields = load_columns(self._metadata, self.cache)
        if fields is None:
            fields = _read_sorted(self._metadata)
            store_columns(self._metadata, self.cache, fields)
        names, ages, people = (fields.pop(column) for column in ("name", "age in name", "person in name"))
        differ = int((ages != fields["age"]).sum())
        if differ:
            images = "image has" if differ == 1 else "images have"
            log.warning(
                "%s %s another age in %s than in the file name: the metadata is used",
                f"{differ:,}",
                images,
                self._metadata,
            )
        if _same_groups(people, fields["identity"]):
            fields["identity"] = people
        else:
            log.warning("the identities in %s differ from those in the names: the metadata is used", self._metadata)
            fields["identity"] = fields["identity"].astype(str)
        # The protocol of the authors: people of ranks 1-2 are val and of ranks 3-5 test; their labels were cleaned.
        fields["part"] = np.select([fields["rank"] > 5, fields["rank"] > 2], ["train", "test"], "val")
        return Records(names, fields)

    def _records_from_names(self) -> Records:
        listed = {_as_listed(path) for path in self._found}
        names = np.array(sorted(name for name in listed if NAME.fullmatch(name)))
        if not self._found:
            raise self._no_images()
        if len(names) == 0:
            raise UserError(
                f"no image under {self.root} has a name like those of CACD (53_Robin_Williams_0001.jpg), and without "
                f"{METADATA[0]} ages come from the names: add that file, or use data=folder or data=table"
            )
        for name in _find_unfinished(self._folder):
            if name.lower().startswith(METADATA):
                log.warning("%s is an unfinished download: ages come from the file names, and ranks are unknown", name)
        ages, people = _ages_and_people(names)
        if len(invalid := invalid_ages(ages)):
            name, age = names[invalid[0]], ages[invalid[0]]
            raise UserError(
                f"{name} under {self.root} gives an age of {age} years, at most {MAX_AGE} are accepted: "
                f"remove the image, or add {METADATA[0]}, which has the ages"
            )
        return Records(names, {"age": ages, "identity": people})

    def _no_images(self) -> UserError:
        has = [] if self._metadata is None else [f"the metadata {self._metadata.name}"]
        has += [f"{name}, an unfinished download" for name in _find_unfinished(self.root)]
        has += _describe_unreadable(self.root)
        only = f", only {' and '.join(has)}" if has else ""
        metadata = f", together with {METADATA[0]}" if self._metadata is None else ""
        return NoImagesError(
            f"no CACD images under {self.root}{only}: expected {self.root}/CACD2000/*.jpg or "
            f"{self.root}/CACD2000.tar.gz (or .tgz, .tar, .zip){metadata}; see docs/data.md for "
            "where to download them, set data.root=FOLDER, or try data=demo"
        )

    @cached_property
    def _folder(self) -> Path:
        return self.root if self.root.is_dir() else self.root.parent

    @cached_property
    def _metadata(self) -> Path | None:
        """The metadata file in the folder of the images, in a direct subfolder, or in the parent folder."""
        if not self.root.exists():
            return None
        own = self._folder
        folders = [own, *sorted(folder for folder in own.glob("*/") if not folder.name.startswith("."))]
        if own == self.root:
            folders.append(self.root.absolute().parent)
        for folder in folders:
            spelled = {name.lower(): name for name in reversed(_names_in(folder))}  # case-insensitive, lower case first
            for file in METADATA:
                if file in spelled and (folder / spelled[file]).is_file():
                    return folder / spelled[file]
        return None

    @cached_property
    def _files(self) -> Files:
        check_exists(self.root)
        if self.root.suffix.lower() == ".mat" and not self.root.is_dir():
            raise UserError(
                f"data.root={self.root} is not a folder of images: give the folder of the images and the metadata, "
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
    """Drawn faces in the layout of CACD, written on first use and then read like CACD.

    Args:
        root: Folder of the data set; created on first use.
        people: Number of identities.
        images: Number of images in total.
        seed: Seed of the drawing.
    """

    def __init__(self, root: DataPath, *, people: Count = 750, images: Count = 3000, seed: Seed = 0) -> None:
        super().__init__(root)
        self.people, self.images, self.seed = people, images, seed

    def prepare(self) -> None:
        """Draw the faces, unless they exist."""
        from agebench.data.sources.demo import write_demo  # here, because CACD itself does not need it

        write_demo(self.root, people=self.people, images=self.images, seed=self.seed)


def _find_archive(folder: Path) -> Path | None:
    """Return the archive in a folder, or None if there is no archive or there are unpacked images."""
    found = [
        folder / name
        for name in _names_in(folder)
        if name.lower().endswith(ARCHIVE_SUFFIXES) and not name.startswith(".") and (folder / name).is_file()
    ]
    if not found:
        return None
    if any(NAME.fullmatch(name.rpartition("/")[2]) for name in find_images(folder)):
        log.info("%s is not read, because the folder also has unpacked images", found[0])
        return None
    named = [path for path in found if path.name.lower().startswith("cacd2000")] or found
    if len(named) > 1:
        raise UserError(
            f"{folder} contains no CACD image and {len(named)} archives, {' and '.join(path.name for path in named)}: "
            "keep only the archive of the images, or set data.root to it"
        )
    return named[0]


def _find_unfinished(folder: Path) -> list[str]:
    """Return the names of unfinished downloads in a folder."""
    return [name for name in _names_in(folder) if name.lower().endswith(UNFINISHED)]


def _describe_unreadable(folder: Path) -> list[str]:
    """Return a phrase for each broken symbolic link and each unsupported archive in a folder."""
    phrases = []
    for name in _names_in(folder):
        path = folder / name
        if path.is_symlink() and not path.exists():
            phrases.append(f"{name}, a broken symbolic link")
        elif name.lower().endswith(ARCHIVES) and not name.startswith(".") and path.is_file():
            phrases.append(f"{name}, an unsupported archive (unpack it)")
    return phrases


def _names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none if it cannot be listed, which find_images reports."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  # 163,446 Path objects take seconds
    except OSError:
        return []


def _read_sorted(metadata: Path) -> dict[str, Array]:
    """Return the columns of a metadata file, sorted by name, with the ages and people that the names contain."""
    fields = read_metadata(metadata)
    order = np.argsort(fields["name"])
    fields = {field: values[order] for field, values in fields.items()}
    ages, people = _ages_and_people(fields["name"])
    return {**fields, "age in name": ages, "person in name": people}


def _as_listed(path: str) -> str:
    """Return the name of an image as in the metadata: without folders, in NFC, with a lower-case extension."""
    name = path.rpartition("/")[2]
    try:
        name.encode()
    except UnicodeEncodeError:  # not valid UTF-8, so it could not be written to a list
        name = name.encode("utf-8", "surrogateescape").decode("latin-1")
    stem, dot, extension = nfc(name).rpartition(".")
    return stem + dot + extension.lower()


def _ages_and_people(names: Array) -> tuple[Array, Array]:
    """Return the ages in years, int64, and the people, str, in names that match NAME, each of shape (N,)."""
    found = [match for match in map(NAME.fullmatch, names.tolist()) if match]
    ages = np.array([int(match[1]) for match in found], dtype=np.int64)
    return ages, np.array([match[2] for match in found])


def _same_groups(people: Array, numbers: Array) -> bool:
    """Return whether names and numbers of people group the images in the same way."""
    pairs = set(zip(people.tolist(), numbers.tolist(), strict=True))
    return len(pairs) == len(set(people.tolist())) == len(set(numbers.tolist()))
