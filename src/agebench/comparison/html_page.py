"""A comparison and a sweep as one self-contained HTML page, with links to the page of each run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agebench.comparison.caption import caption, heading, unranked_sentence
from agebench.comparison.cells import Cells, lay_out, ranking_column
from agebench.comparison.groups import Group, count, name_of
from agebench.comparison.overview import Overview, overviews
from agebench.comparison.tables import Comparison, Table
from agebench.metrics.table import find
from agebench.pages.html import render
from agebench.pages.thumbnails import picture_uri
from agebench.runs.read import Run

CAPTIONS = {
    "ranking": "The result of each group: the mean (square; star: the best), ± one standard deviation over seeds (bar) "
    "and each seed (circle). A group of one run has its 95% interval.",
    "tuning": "The result over a setting that is a number: a line is a combination of the other settings, a point the "
    "mean over seeds, and a bar ± one standard deviation.",
    "curves": "The metrics after each epoch of training: a line is the mean over seeds, and a band reaches from the "
    "lowest to the highest seed.",
    "parallel": "A line is a group: follow it from its settings to its result on the right.",
}


@dataclass(frozen=True)
class PointTable:
    """The table of all points of a sweep, also of those that are not completed.

    Args:
        header: The name of each column.
        rows: The cells of each point; the first is its name.
        numbers: For each column, whether it holds numbers.
        runs: The run of each row.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[bool]
    runs: Sequence[Run] = field(default=())


def to_html(
    comparison: Comparison,
    figures: Mapping[str, Path] | None = None,
    *,
    folder: Path | None = None,
    title: str = "Runs compared",
    subtitle: str = "",
    notes: Sequence[str] = (),
    points: PointTable | None = None,
) -> str:
    """Return a self-contained HTML page with the tables, the notes and the embedded figures.

    Args:
        comparison: The comparison.
        figures: The path of each figure by its title, `ranking: ...`.
        folder: The folder of the page, to which links are relative; None is the working directory.
        title: The heading.
        subtitle: A sentence below the heading.
        notes: Warnings below the heading.
        points: The points of a sweep.
    """
    base = (folder or Path()).absolute()
    drawn = dict(figures or {})
    of_tables = [
        {name: drawn.pop(name) for name in list(drawn) if name.endswith(f": {heading(t)}")} for t in comparison.tables
    ]
    return render(
        "compare.html",
        title=title,
        subtitle=subtitle,
        notes=[*notes, *([comparison.not_comparable] if comparison.not_comparable else [])],
        tables=[
            *map(_overview, overviews(comparison)),
            *(_table(table, mine, base) for table, mine in zip(comparison.tables, of_tables, strict=True)),
        ],
        figures=[_figure(name, path) for name, path in drawn.items()],
        unranked=[] if points else [unranked_sentence(run) for run in comparison.unranked],
        unranked_count=count(len(comparison.unranked), "run"),
        points=None if points is None else _points(points, base),
    )


def _table(table: Table, figures: Mapping[str, Path], base: Path) -> dict[str, Any]:
    cells = lay_out(table)
    shown = _cells(cells, base)
    return {
        "heading": heading(table),
        "best": _best(table),
        **shown,
        "pages_after": cells.header.index("n") + 1 if any(row["pages"] for row in shown["rows"]) else 0,
        "caption": caption(table),
        "notes": list(table.notes),
        "figures": [_figure(name, path) for name, path in figures.items()],
    }


def _overview(overview: Overview) -> dict[str, Any]:
    rest = {"best": "", "pages_after": 0, "notes": [], "figures": []}
    return {"heading": overview.heading, **_cells(overview.cells, Path()), "caption": overview.caption, **rest}


def _cells(cells: Cells, base: Path) -> dict[str, Any]:
    rows = [
        {
            "cells": list(zip(row, cells.numbers, strict=True)),
            "quiet": quiet,
            "pages": [] if group is None else _links(group, base),
        }
        for row, quiet, group in zip(cells.rows, cells.quiet, cells.groups, strict=True)
    ]
    return {"header": list(zip(cells.header, cells.numbers, strict=True)), "rows": rows}


def _best(table: Table) -> str:
    """Return a sentence about the first row; empty if it has no rank."""
    first = table.rows[0]
    if first.rank is None or len(table.rows) < 2:
        return ""
    result = ranking_column(table).cells[0]
    unit = f" {table.unit}" if table.unit and find(table.metric).in_unit else ""
    equal = sum(row.rank == first.rank for row in table.rows) - 1
    others = f", and {count(equal, 'other')} with an equal result" if equal else ""
    return f"Best of {len(table.rows):,}: {name_of(first.group)}, {find(table.metric).name} {result}{unit}{others}."


def _links(group: Group, base: Path) -> list[tuple[str, str]]:
    """Return a text and an address for each run of a group that has a page."""
    names: list[tuple[str, Run]] = []
    for run in group.runs:
        name = "page" if run.seed is None else f"seed {run.seed}"
        in_order = f"{name}, fold " if len(group.runs) > 1 else "fold "
        names += [(f"{in_order}{fold}", each) for fold, each in enumerate(run.folds)] or [(name, run)]
    return [(name, link) for name, run in names if (link := page_link(run, base))]


def page_link(run: Run, base: Path) -> str:
    """Return the address of the page of a run relative to a folder; empty if it has none."""
    page = (run.folder / "report" / "index.html").absolute()
    if not page.is_file():
        return ""
    try:
        return quote(Path(os.path.relpath(page, base)).as_posix())
    except ValueError:  # on Windows, the folder is on another drive
        return page.as_uri()


def _points(points: PointTable, base: Path) -> dict[str, Any]:
    return {
        "header": list(zip(points.header, points.numbers, strict=True)),
        "rows": [
            {"cells": list(zip(row, points.numbers, strict=True)), "link": page_link(run, base)}
            for row, run in zip(points.rows, points.runs, strict=True)
        ],
    }


def _figure(name: str, path: Path) -> dict[str, str]:
    return {"uri": picture_uri(path), "caption": CAPTIONS.get(name.partition(":")[0], name)}
