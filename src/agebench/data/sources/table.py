"""A CSV file that names images and their labels: one's own data without a line of code."""

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from agebench.data.readers.folders import FileSource, FolderFiles, nfc
from agebench.data.records import Array, Records
from agebench.data.split_lists import delimiter
from agebench.errors import UserError, did_you_mean

NUMBER = re.compile(r"-?[0-9]+")


class Table(FileSource):
    """A table with a row an image.

    Args:
        root: The CSV file (UTF-8, header in the first row); relative image paths are taken from its folder.
        columns: Names of the columns for `path` and `label`, and, if the table has them, `identity` and `split`
            (train, val or test). The latter two must be there if they are given another name than that.
        label: `class` if labels are names, `age` if they are years (then decade, age and bins can be learnt).
    """

    channels = 3

    def __init__(self, root: str, columns: Mapping[str, str | None], *, label: str = "class") -> None:
        self.root = Path(root).expanduser()
        self.columns = dict(columns)
        self.label = label

    @property
    def targets(self) -> tuple[str, ...]:
        """What the labels can be learnt as."""
        return ("class",) if self.label == "class" else ("age", "decade", "bins")

    def prepare(self) -> None:
        """Raise UserError if the table or its columns are missing."""
        self.records()

    def records(self) -> Records:
        """Return a row for each row of the table."""
        return self._records

    @cached_property
    def _files(self) -> FolderFiles:
        return FolderFiles(self.root.parent)

    @cached_property
    def _file_names(self) -> list[str | None]:
        return [self._spelled(str(name)) for name in self._records.names]

    def _spelled(self, name: str) -> str | None:
        """Return a path as the disk has it: macOS unpacks accents to another Unicode form than tables have."""
        spellings = (name, nfc(name), unicodedata.normalize("NFD", name))
        return next((each for each in spellings if (self.root.parent / each).is_file()), None)

    @cached_property
    def _records(self) -> Records:
        if not self.root.is_file():
            raise UserError(f"no table at {self.root}: data.root must be a CSV file with the columns path and label")
        try:
            with self.root.open(newline="", encoding="utf-8-sig") as file:
                lines = file.readlines()
            reader = csv.DictReader(lines, delimiter=delimiter(lines))
            rows, has = list(reader), list(reader.fieldnames or [])
        except OSError as error:
            raise UserError(
                f"cannot read {self.root} ({error.strerror or error}): see to its permissions, or to the disk"
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(
                f"cannot read {self.root} as a CSV file in UTF-8 ({error}): save it as CSV UTF-8"
            ) from error
        for column in ("path", "label", "identity", "split"):
            name = self.columns.get(column)
            # Without the last two under their usual names a table is one that has none of it; a name given is meant.
            if name not in has and (column in ("path", "label") or name not in (None, column)):
                raise UserError(
                    f"{self.root} has no column {name!r}, only {', '.join(has) or 'none'}{did_you_mean(name, has)}: "
                    f"name yours with data.columns.{column}=NAME"
                )
        if not rows:
            raise UserError(f"{self.root} has a header but no rows: it needs one row an image")

        def read(column: str) -> Array:
            return np.array([row[self.columns[column]] or "" for row in rows])

        names, labels = read("path"), read("label")
        if (names == "").any():
            raise UserError(
                f"{self.root} gives no path in row {np.argmax(names == '') + 1} below its header: "
                "fill it in or take the row out"
            )
        spelled = Counter(nfc(os.path.normpath(name)) for name in names)  # ./a.jpg is a.jpg
        if len(spelled) < len(names):
            raise UserError(f"{self.root} names {spelled.most_common(1)[0][0]} twice: every path must be there once")
        if (labels == "").any():
            raise UserError(f"{self.root} gives no label for {names[labels == ''][0]}: fill it in or take the row out")
        columns: dict[str, Array] = {}
        class_names: tuple[str, ...] = ()
        if self.label == "class":
            # Labels that are all numbers keep the order of numbers: 2 before 10.
            found = {str(text) for text in labels}
            numeric = all(NUMBER.fullmatch(text) for text in found)
            class_names = tuple(sorted(found, key=lambda text: (int(text) if numeric else 0, text)))
            code = {text: i for i, text in enumerate(class_names)}
            columns["class"] = np.array([code[str(text)] for text in labels], dtype=np.int64)
        else:
            try:
                years = labels.astype(np.float64)
            except ValueError as error:
                raise UserError(f"{self.root}: data.source.label=age needs years in every row ({error})") from error
            if not np.all((years >= 0) & (years <= 200)):
                odd = labels[~((years >= 0) & (years <= 200))][0]
                raise UserError(f"{self.root}: data.source.label=age needs ages of 0 to 200 years, got {odd}")
            columns["age"] = years.astype(np.int64)
        if self.columns.get("identity") in has:
            columns["identity"] = read("identity")
            if (columns["identity"] == "").any():
                raise UserError(
                    f"{self.root} says of {names[columns['identity'] == ''][0]} not who it is, and of others it does: "
                    "fill it in, or take the column away with data.columns.identity=null"
                )
        if self.columns.get("split") in has:
            columns["part"] = read("split")
            unknown = sorted(set(columns["part"]) - {"train", "val", "test", ""})
            if unknown:
                raise UserError(f"{self.root}: split must be train, val or test, got {', '.join(unknown[:3])}")
        return Records(names, columns, class_names, own_parts="part" in columns)
