"""What a page and its pictures show, read from the files of one run folder. Any file may be missing or damaged."""

import logging
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from agebench.data.split import PARTS
from agebench.files import read_csv
from agebench.leakage.seen_in_training import leak_sentence, seen_sentence
from agebench.report.explained import Explained
from agebench.report.outcome import Array, Outcome
from agebench.report.projection import Projected, project_parts
from agebench.report.report_images import ReportImages
from agebench.runs.command_line import arguments_of
from agebench.runs.predictions_csv import UNREADABLE, labelled_predictions, read_predictions, unit_of
from agebench.runs.read import Run, mapping, number, read_run

log = logging.getLogger(__name__)

T = TypeVar("T")
DAMAGED = (*UNREADABLE, TypeError, zipfile.BadZipFile, EOFError)


@dataclass(frozen=True)
class Material:
    """The files of a run, each read when it is first needed.

    Args:
        run: The run, or the evaluation or score, as agebench.runs.read returns it.
    """

    run: Run

    @classmethod
    def of(cls, folder: Path) -> "Material":
        """Return the material of a run folder."""
        return cls(read_run(folder.absolute()))

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run.folder

    @property
    def report(self) -> Path:
        """The folder of the pictures and of the page."""
        return self.folder / "report"

    @property
    def protocol(self) -> str:
        """The protocol of the test, such as `cacd/identity/age`."""
        return str(self.run.result("protocol") or "")

    @property
    def unit(self) -> str:
        """The unit of the errors, empty for classes."""
        return unit_of(self.protocol)

    @property
    def model(self) -> str:
        """The name of the network, such as `mlp`, or that of timm, or of a model that was trained elsewhere."""
        chosen = self.run.config.get("model.model_name") or self.run.choices.get("model")
        return str(self.run.scored or chosen or "")

    @property
    def title(self) -> str:
        """The title of every picture."""
        return " · ".join(each for each in (self.protocol, self.model) if each)

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """The metrics of each epoch, from metrics.csv; empty if there are none."""
        rows = self._read("metrics.csv", read_csv, of_training=True) or []
        return [
            {key: value for key, cell in row.items() if cell and (value := _number(cell)) is not None} for row in rows
        ]

    @cached_property
    def outcome(self) -> Outcome | None:
        """The predictions of the test images, from predictions.csv; None without posteriors."""
        return self._read("predictions.csv", self._outcome)

    def _outcome(self, path: Path) -> Outcome:
        labels, leading, posterior = read_predictions(path, posterior=True)
        names, identities, targets, points = (list(column) for column in zip(*leading, strict=True))
        found = labelled_predictions(labels, targets, points, posterior=posterior, unit=self.unit)
        return Outcome(
            names=np.array(names, dtype=object),
            target=found.target,
            posterior=found.posterior,
            point=found.point,
            values=found.values,
            label_names=tuple(labels),
            ordered=found.ordered,
            unit=self.unit,
            note=self.leak_sentence,
            lookup_mae=number(self.leak.get("lookup_mae")),
            people=np.array(identities) if any(identities) else None,
        )

    @property
    def leak(self) -> Mapping[str, Any]:
        """`leak` of results.json; empty if no identity of test is in train."""
        return mapping(self.run.result("leak"))

    @property
    def leak_sentence(self) -> str:
        """The sentence about a leak; empty without one, or if results.json is damaged."""
        try:
            return leak_sentence(self.leak) if self.leak else ""
        except DAMAGED:
            return ""

    @property
    def seen_sentence(self) -> str:
        """The sentence about the images that the run of an evaluation has seen; empty for a run."""
        try:
            return seen_sentence(seen) if (seen := mapping(self.run.result("seen_in_training"))) else ""
        except DAMAGED:
            return ""

    @cached_property
    def images(self) -> ReportImages | None:
        """The images that the training left in report/images.npz."""
        return self._read("report/images.npz", ReportImages.load)

    @cached_property
    def explained(self) -> Explained | None:
        """What the network sees in some test images, from report/explained.npz; only with a full report."""
        return self._read("report/explained.npz", Explained.load)

    @cached_property
    def thumbnails(self) -> dict[str, Array]:
        """Small images of the rows of `features`, uint8, shape (n, C, s, s); only with a full report."""
        found = {part: self._read(f"report/features_{part}.npz", _load_thumbnails) for part in PARTS}
        return {part: each for part, each in found.items() if each is not None and len(each)}

    @cached_property
    def features(self) -> dict[str, tuple[Array, Array]]:
        """Features, float, shape (n, d), and label indices, int64, shape (n,), of each part with features_PART.npz."""
        found = {part: self._read(f"report/features_{part}.npz", _load_features) for part in PARTS}
        return {part: each for part, each in found.items() if each is not None}

    @cached_property
    def projected(self) -> dict[str, Projected]:
        """PCA and t-SNE of the features of each part."""
        return project_parts(self.features)

    @cached_property
    def counts(self) -> dict[str, Counter[str]]:
        """The number of images of each label in each part, from split.csv; empty if it cannot be read."""
        found = {part: Counter(row["target"] for row in self._split if row["part"] == part) for part in PARTS}
        return {part: counts for part, counts in found.items() if counts}

    @cached_property
    def identities(self) -> dict[str, int]:
        """The number of known identities in each part, from split.csv; empty if none is known."""
        known = {part: {row["identity"] for row in self._split if row["part"] == part} - {""} for part in PARTS}
        return {part: len(names) for part, names in known.items()} if any(known.values()) else {}

    @cached_property
    def _split(self) -> list[dict[str, str]]:
        return self._read("split.csv", _columns_of("part", "identity", "target"), of_training=True) or []

    @cached_property
    def layers(self) -> list[dict[str, str]]:
        """The rows of layers.csv: layer, type, output_shape and parameters; empty for runs of older versions."""
        read = _columns_of("layer", "type", "output_shape", "parameters")
        return self._read("layers.csv", read, of_training=True) or []

    @cached_property
    def line(self) -> list[str]:
        """The arguments of the command, from .hydra/; empty if they cannot be read."""
        return arguments_of(self.folder)

    @property
    def own_code(self) -> dict[str, str]:
        """The user's own code in the run: the hash of each `_target_`."""
        return {str(name): str(sha) for name, sha in mapping(self.run.result("code")).items()}

    @cached_property
    def decision_curves(self) -> dict[str, Array] | None:
        """The columns of decision.csv, float64, shape (A,) each; None without an age limit."""
        return self._read("decision.csv", _columns)

    @cached_property
    def groups(self) -> list[dict[str, str]]:
        """The rows of by_group.csv; empty without groups."""
        return self._read("by_group.csv", read_csv) or []

    @cached_property
    def missing(self) -> list[str]:
        """Names of listed images that do not exist."""
        return [row["name"] for row in self._read("missing.csv", _columns_of("name"), of_training=True) or []]

    @cached_property
    def broken(self) -> dict[str, str]:
        """The reason for each image that cannot be decoded."""
        rows = self._read("broken.csv", _columns_of("name", "reason"), of_training=True) or []
        return {row["name"]: row["reason"] for row in rows}

    def _read(self, name: str, read: Callable[[Path], T], *, of_training: bool = False) -> T | None:
        """Return what a function reads from a file, or None if the file is missing or damaged, which is logged.

        Args:
            name: The file inside the folder.
            read: Reads it.
            of_training: Whether an evaluation has this file in the folder of its run.
        """
        places = [self.folder, *([self.run.evaluated] if of_training and self.run.evaluated else [])]
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            return None
        try:
            return read(path)
        except DAMAGED as error:
            log.warning("%s cannot be read (%s): its part of the report is left out", path, type(error).__name__)
            return None


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _columns_of(*names: str) -> Callable[[Path], list[dict[str, str]]]:
    """Return a function that reads some columns of a CSV file; it raises if one is missing or a row is too short."""

    def read(path: Path) -> list[dict[str, str]]:
        rows = [{name: row[name] for name in names} for row in read_csv(path)]
        if any(cell is None for row in rows for cell in row.values()):
            raise ValueError("a row is too short")
        return rows

    return read


def _columns(path: Path) -> dict[str, Array]:
    rows = read_csv(path)
    return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}


def _load_thumbnails(path: Path) -> Array:
    with np.load(path, allow_pickle=False) as stored:
        return np.asarray(stored["thumbnails"]) if "thumbnails" in stored else np.zeros(0)


def _load_features(path: Path) -> tuple[Array, Array]:
    with np.load(path, allow_pickle=False) as stored:
        return stored["features"], stored["labels"]
