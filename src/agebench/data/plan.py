"""The plan of a data set: the images, their labels and their parts. No image is opened."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agebench.data import split as splits
from agebench.data.groups import with_groups
from agebench.data.protocol import target_name
from agebench.data.records import Array, Records, Source
from agebench.data.split import PARTS, Split
from agebench.data.target import Target, make_target
from agebench.errors import UserError

log = logging.getLogger(__name__)

OLDEST = 122  # years, of Jeanne Calment


@dataclass(frozen=True)
class Plan:
    """Records, labels and split of a data set.

    Args:
        name: The data set's name in protocols and folders.
        protocol: `dataset/split/target`. Only results of the same protocol can be compared.
        listed: All N records that the source lists.
        rows: Row of each of the n records in `listed`, int64, shape (n,), ascending.
        records: The n records whose image exists.
        target: Their labels.
        split: Rows of the records in train, val and test.
        missing: Names of listed images that do not exist, shape (N - n,).
        broken: Names of images that cannot be decoded, with the reason; known after the images are packed.
    """

    name: str
    protocol: str
    listed: Records
    rows: Array
    records: Records
    target: Target
    split: Split
    missing: Array
    broken: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each part."""
        return {part: len(self.split.part(part)) for part in PARTS}

    @property
    def used(self) -> Array:
        """Rows of the records that are in any part, int64, ascending."""
        return np.unique(np.concatenate([self.split.part(part) for part in PARTS]))

    def without(self, broken: Mapping[int, str], *, require_all: bool) -> "Plan":
        """Return the plan without images that cannot be decoded, and log a warning if there are any.

        They are removed after the split is drawn, so that the first run, which finds them, and later runs test the same
        people.

        Args:
            broken: Reason by row of `listed`.
            require_all: Whether a broken image is an error.

        Raises:
            UserError: If an image is broken and all are required, or a part has no image left.
        """
        if not broken:
            return self
        reasons = {str(self.listed.names[row]): why for row, why in sorted(broken.items())}
        is_broken = np.isin(self.rows, list(broken))
        lost = {part: int(is_broken[self.split.part(part)].sum()) for part in PARTS}
        examples = ", ".join(f"{name} ({why})" for name, why in list(reasons.items())[:3])
        text = f"{len(broken):,} of the used images cannot be decoded ({_format_counts(lost)}): {examples}"
        _warn_or_refuse(text, "broken.csv", require_all=require_all)
        train, val, test = (rows[~is_broken[rows]] for rows in map(self.split.part, PARTS))
        split = replace(self.split, train=train, val=val, test=test)
        splits.check(split)
        return replace(self, split=split, broken=reasons)


class Planner:
    """Makes the plan of a data set from its source, target and split.

    Args:
        source: Lists the images and their metadata.
        split: Takes (records, labels) and returns a Split.
        name: The data set's name in protocols and folders.
        target: `class`, `decade`, `age` or `bins`.
        bins: Lower edges in years, for the target `bins`.
        ages: Lowest and highest age with a label, for the targets `age` and `decade`; None: those of the records.
        groups: Columns that the test images are grouped by.
        per_class: Keep at most this many train images of each label.
        limit: Keep at most this many images of each part.
        require_all: Whether a missing or broken image is an error instead of a warning.
    """

    def __init__(
        self,
        source: Source,
        split: Callable[[Records, Array], Split],
        *,
        name: str,
        target: str,
        bins: Sequence[float] | None = None,
        ages: Sequence[int] | None = None,
        groups: Sequence[str | int] | None = None,
        per_class: int | None = None,
        limit: int | None = None,
        require_all: bool = False,
    ) -> None:
        self.source, self.split, self.name = source, split, name
        self.target, self.bins, self.ages = target, bins, ages
        self.groups = [str(column) for column in groups or ()]
        self.per_class, self.limit, self.require_all = per_class, limit, require_all

    def plan(self, *, listed: bool = False) -> Plan:
        """Return the plan: records, labels and split. No image is opened.

        Args:
            listed: Whether to include every image that the data set lists, even if its file does not exist.

        Raises:
            UserError: If the source has no images, or its records do not support the target or the split.
        """
        if not listed:
            self.source.prepare()
        all_records = with_groups(self.source.records(), self.source, self.groups, name=self.name)
        present = np.ones(len(all_records), dtype=bool) if listed else self.source.present()
        rows, missing = np.flatnonzero(present), all_records.names[~present]
        target = make_target(all_records, self.target, bins=self.bins, ages=self.ages)
        if len(rows) == 0:
            raise UserError(
                f"data={self.name} lists {len(present):,} images and none of them exists "
                f"(the first is {all_records.names[0]}): check data.root"
            )
        records = all_records if len(rows) == len(present) else all_records.take(rows)
        labels = target.labels[rows]
        split = self.split(records, labels)
        splits.check(split)
        split = splits.cap(split, labels, per_class=self.per_class, limit=self.limit)
        plan = Plan(
            name=self.name,
            protocol=f"{self.name}/{split.name}/{target_name(self.target, self.bins)}",
            listed=all_records,
            rows=rows,
            records=records,
            target=replace(target, labels=labels),
            split=split,
            missing=missing,
        )
        self._report(plan)
        return plan

    def _report(self, plan: Plan) -> None:
        """Warn about missing images, impossible ages and a val part that is the test part.

        Raises:
            UserError: If a part is empty.
        """
        if len(plan.missing):
            text = (
                f"{len(plan.missing):,} of the {len(plan.listed):,} images that data={self.name} lists do not exist, "
                f"such as {', '.join(map(str, plan.missing[:3]))}; images used: {_format_counts(plan.counts)}"
            )
            _warn_or_refuse(text, "missing.csv", require_all=self.require_all)
        _warn_of_old(plan.records)
        splits.check(plan.split)
        if plan.split.val_is_test:
            log.warning(
                "data/split=%s validates on its test images, as in the lecture: selecting an epoch or a "
                "hyperparameter on val makes the test result optimistic",
                plan.split.name,
            )


def _warn_of_old(records: Records) -> None:
    """Warn about ages above the oldest verified age, which are probably typing errors."""
    ages = records.columns.get("age")
    if ages is not None and len(old := np.flatnonzero(ages > OLDEST)):
        named = ", ".join(f"{records.names[row]} ({ages[row]} years)" for row in old[:3].tolist())
        more = f" and {len(old) - 3:,} more" if len(old) > 3 else ""
        log.warning("implausible age (above %d years): check %s%s", OLDEST, named, more)


def _warn_or_refuse(text: str, table: str, *, require_all: bool) -> None:
    if require_all:
        raise UserError(f"{text}; data.require_all=true needs every image")
    log.warning("%s; they are excluded (full list: %s)", text, table)


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {count:,}" for part, count in counts.items())
