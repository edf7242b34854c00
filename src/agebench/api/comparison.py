"""Compare runs, as `python -m agebench.compare` does."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from markupsafe import Markup

from agebench.api.pictures import Picture
from agebench.api.process import errors_as_exceptions
from agebench.api.run import Run
from agebench.api.table import html_table
from agebench.comparison.caption import caption, heading
from agebench.comparison.cells import lay_out
from agebench.comparison.make import Request, compare_folders
from agebench.comparison.pictures import draw_pictures
from agebench.comparison.render import notes_of, to_json, to_markdown
from agebench.comparison.tables import Comparison
from agebench.comparison.write import write_comparison
from agebench.errors import UserError
from agebench.text import listed


class Compared:
    """Runs grouped over seeds and ranked by a test metric, with the uncertainty of their differences.

    Args:
        comparison: The comparison.
        notes: Sentences about runs that were left out while reading.
    """

    def __init__(self, comparison: Comparison, notes: Sequence[str] = ()) -> None:
        self._comparison = comparison
        left_out = [comparison.not_comparable] if comparison.not_comparable else []
        self.notes = [*notes, *left_out, *notes_of(comparison)]

    @cached_property
    def results(self) -> dict[str, Any]:
        """All results, as `--format json` writes them."""
        found: dict[str, Any] = json.loads(to_json(self._comparison))
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each group of runs, the best first: rank, settings, metric, mean, std, interval, ..."""
        return [
            {"protocol": table["protocol"], "metric": table["metric"], **group}
            for table in self.results["tables"]
            for group in table["groups"]
        ]

    def pictures(self) -> dict[str, Picture]:
        """Draw the ranking, the learning curves and the parallel coordinates, as far as there are enough runs."""
        self._folder = TemporaryDirectory(prefix="agebench-compare-")  # removed with this object
        drawn = draw_pictures(self._comparison, Path(self._folder.name))
        return {path.stem: Picture(path) for path in drawn.values()}

    def write(self, folder: str | Path, *, formats: Sequence[str] = ("html", "md", "csv")) -> list[Path]:
        """Write compare.html, ... and the pictures to a folder, and return the paths of the files."""
        return write_comparison(self._comparison, Path(folder).expanduser(), formats)

    def __repr__(self) -> str:
        return to_markdown(self._comparison)

    def _repr_markdown_(self) -> str:
        return to_markdown(self._comparison)

    def _repr_html_(self) -> str:
        parts = []
        for table in self._comparison.tables:
            cells = lay_out(table)
            rows = [dict(zip(cells.header, row, strict=True)) for row in cells.rows]
            parts.append(Markup("<h4>{}</h4>").format(heading(table)))
            right = [name for name, is_number in zip(cells.header, cells.numbers, strict=True) if is_number]
            parts.append(Markup(html_table(cells.header, rows, caption=caption(table), right=right)))
        parts += [Markup("<p>{}</p>").format(note) for note in self.notes]
        return "\n".join(parts)


def compare(
    *runs: Run | str | Path,
    metric: str | None = None,
    age_limit: int | None = None,
    by: str | Sequence[str] | None = None,
    gaps: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    evaluations: bool = False,
) -> Compared:
    """Compare runs over seeds, on the same test images.

    Args:
        runs: Runs, or folders of runs, sweeps and evaluations; folders below them are searched.
        metric: The test metric to rank by; None: `mae` for ages in years, else `accuracy`.
        age_limit: Compare decisions at this age limit, in years.
        by: A column or columns of groups, such as `"sex"`, `"sex,race"` or `["sex", "race"]`: rank within each group of
            test images.
        gaps: A column or columns of groups: show the gap between the best and the worst group.
        columns: Names or patterns of the further metrics to show, such as `"nll,cs*"`; None: the usual ones.
        evaluations: Whether evaluations of these runs are compared too. Those of a folder that is given always are.

    Raises:
        UserError: If there is no run, or no run has such a metric, limit or group.

    Examples:
        >>> compared = compare("outputs/sweeps/lr")  # doctest: +SKIP
        >>> compared.rows[0]["params"]  # doctest: +SKIP
        {'optim.lr': 0.003}
    """
    if not runs:
        raise UserError("compare needs runs, or folders with runs: compare('outputs')")
    folders = [run.folder if isinstance(run, Run) else Path(run).expanduser() for run in runs]
    notes: list[str] = []
    request = Request(metric, age_limit, _names(by), _names(gaps), _names(columns) or None, evaluations)
    with errors_as_exceptions():
        return Compared(compare_folders(folders, request, note=notes.append), notes)


def _names(given: str | Sequence[str] | None) -> Sequence[str]:
    return listed(given) if isinstance(given, str) else given or ()
