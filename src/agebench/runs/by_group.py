"""The results of a test by group: groups.csv, by_group.csv, a figure, and `groups` of results.json."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.data.plan import Plan
from agebench.files import write_csv
from agebench.identity_groups import group_codes
from agebench.metrics import breakdown
from agebench.metrics.bootstrap import resamples_for
from agebench.metrics.by_group import LEAST, Gap, Group, find_gaps, measure_groups, small_groups
from agebench.metrics.predictions import Array, Predictions, is_finite
from agebench.metrics.table import find, main_metric
from agebench.runs.description import SEED, identities_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# The metrics of the figure, as far as there are any.
DRAWN = ("mae", "accuracy", "bias", "false_adult_rate", "false_minor_rate", "coverage")
PANELS = 5


@dataclass(frozen=True)
class GroupResults:
    """The results of a test by group.

    Args:
        facts: `groups` of results.json.
        names: The names of the N test images.
        columns: The group of each image, shape (N,) for each column.
        table: The columns and rows of by_group.csv.
        overall: The metrics of all images.
        unit: The unit of the target, empty for classes.
        protocol: The protocol of the test, the title of the figure.
    """

    facts: dict[str, Any]
    names: Array
    columns: Mapping[str, Array]
    table: breakdown.Table
    overall: Mapping[str, float]
    unit: str
    protocol: str

    def write(self, folder: Path) -> None:
        """Write groups.csv (the groups of each test image) and by_group.csv (the metrics of each group) to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = zip(self.names.tolist(), *(column.tolist() for column in self.columns.values()), strict=True)
        write_csv(folder / "groups.csv", ("name", *self.columns), rows)
        write_csv(folder / "by_group.csv", *self.table)

    def draw(self, folder: Path) -> None:
        """Write by_group.png to a folder, which is created."""
        from agebench.report.by_group import write_groups

        write_groups(folder, self.table, self._panels(), title=self._title)

    def figure(self) -> "Figure | None":
        """Return the figure; None if no group has metrics."""
        from agebench.report.by_group import draw_table

        return draw_table(self.table, self._panels(), title=self._title)

    @property
    def _title(self) -> str:
        return f"{self.protocol}: results by group (number of {self._units})"

    @property
    def _units(self) -> str:
        return "images" if self.facts["over"] == "image" else "people"

    def _panels(self) -> dict[str, Any]:
        from agebench.report.by_group import Panel

        main = main_metric(self.unit)
        known = [name for name in DRAWN if f"test/{name}" in self.overall and name in self.table[0]]
        chosen = [name for name in known if name == main or name not in ("mae", "accuracy")][:PANELS]
        return {
            name: Panel(
                f"{name} ({self.unit})" if self.unit and find(name).in_unit else name,
                self.overall[f"test/{name}"],
                [f"{gap['by']}: {self._text(gap)}" for gap in self.facts["gaps"] if gap["metric"] == name],
            )
            for name in chosen
        }

    def log(self) -> None:
        """Log the gap of the main metric for each column, and warn about groups that are not compared."""
        sentences = self._sentences()
        for sentence in sentences:
            log.info("%s", sentence)
        if sentences and self.unit:
            log.info("differences between groups are not adjusted for their ages; compare --gaps COLUMN adjusts them")
        for note in self.facts["notes"]:
            log.warning("%s", note)

    def _sentences(self) -> list[str]:
        main = main_metric(self.unit)
        return [
            f"by {gap['by']}: of the groups with at least {LEAST} {self._units}, {main} differs most between "
            f"{gap['worst']} (worst) and {gap['best']} (best), by {self._text(gap)} (Holm)"
            for gap in self.facts["gaps"]
            if gap["metric"] == main
        ]

    def _text(self, gap: Mapping[str, Any]) -> str:
        digits = find(gap["metric"]).decimals(unit=self.unit, images=len(self.names))
        # results.json has null for a number that is not finite.
        value, *bounds = (
            "?" if number is None else f"{number:.{digits}f}" for number in (gap["gap"], *gap["interval"])
        )
        p = gap["p_holm"]
        return f"{value} [{', '.join(bounds)}], p = {'?' if p is None else format(p, '.2g')}"


def group_results(plan: Plan, predictions: Predictions) -> GroupResults | None:
    """Return the results of a test by group; None without groups, or if the predictions are not finite."""
    if not plan.records.groups or not is_finite(predictions):
        return None
    rows = plan.split.test[predictions.rows]
    columns = {column: groups[rows] for column, groups in plan.records.groups.items()}
    identities = identities_of(plan, predictions)
    units = "images" if identities is None else "people"
    groups = measure_groups(predictions, columns, identities)
    gaps = find_gaps(predictions, groups, identities, seed=SEED)
    notes = [f"fewer than {LEAST} {units}: not compared" if group.is_small else "" for group in groups]
    facts = {
        "columns": list(columns),
        "least": LEAST,
        "over": "image" if identities is None else "identity",
        "resamples": resamples_for(group_codes(identities, len(rows))[1]),
        "gaps": [_fact(gap) for gap in gaps],
        "notes": [*_notes(groups, units), *_notes_on_rates(groups, gaps, units)],
    }
    table = breakdown.by_group(predictions, groups, notes, with_people=identities is not None)
    names = plan.records.names[rows]
    return GroupResults(facts, names, columns, table, predictions.metrics, predictions.unit, plan.protocol)


def _fact(gap: Gap) -> dict[str, Any]:
    return {
        "by": gap.by,
        "metric": gap.metric,
        "worst": gap.worst,
        "best": gap.best,
        "gap": gap.value,
        "interval": [gap.low, gap.high],
        "p": gap.p,
        "p_holm": gap.adjusted,
        "groups": gap.groups,
    }


def _notes(groups: list[Group], units: str) -> list[str]:
    """Return a sentence for each column with groups that are not compared."""
    notes = []
    for by in dict.fromkeys(group.by for group in groups):
        of = [group for group in groups if group.by == by]
        if small := small_groups({group.name: group.people for group in of}):
            notes.append(f"by {by}: not compared, fewer than {LEAST} {units}: {small}")
        if sum(not group.is_small for group in of) < 2:
            notes.append(f"by {by}: no gap, because fewer than two groups have {LEAST} {units}")
    return notes


def _notes_on_rates(groups: list[Group], gaps: list[Gap], units: str) -> list[str]:
    """Return a sentence for each column and metric with groups that have too few people on one side of an age limit."""
    notes = []
    for by in dict.fromkeys(group.by for group in groups):
        large = [group for group in groups if group.by == by and not group.is_small]
        compared = {gap.metric: gap.groups for gap in gaps if gap.by == by}
        for name in dict.fromkeys(name for group in large for name in group.values):
            if len(large) > 1 and (count := compared.get(name, 0)) < len(large):
                notes.append(
                    f"by {by}: {name} is compared for {count} of {len(large)} groups, the others have fewer than "
                    f"{LEAST} {units} on its side of the limit"
                )
    return notes
