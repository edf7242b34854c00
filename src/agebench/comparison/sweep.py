"""The summary of a sweep: sweep.csv with one row per point, sweep.md, sweep.html, and figures."""

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agebench.comparison.folds import pool_folds
from agebench.comparison.groups import count
from agebench.comparison.html_page import PointTable, to_html
from agebench.comparison.parameters import Parameters, differing, format_value, short_names
from agebench.comparison.pictures import draw_pictures
from agebench.comparison.render import align, csv_value, to_markdown
from agebench.comparison.tables import Comparison, compare
from agebench.files import write_csv, write_text
from agebench.leakage.audit import UNKNOWN_PEOPLE
from agebench.runs.read import Run, number, points_of, read_run
from agebench.text import markdown

log = logging.getLogger(__name__)


def write_sweep(folder: Path, planned: Sequence[Path] = ()) -> None:
    """Write sweep.csv, sweep.md, sweep.html and figures for all points in the folder of a sweep, finished or not.

    This function never raises: an unreadable point is listed as unreadable, and a file that cannot be written is
    skipped with a warning.

    Args:
        folder: The folder of the sweep.
        planned: The folders of all points, which may not exist yet.
    """
    try:
        points = points_of(folder)
        names = {run.folder.name for run in points}
        points += [read_run(path) for path in planned if path.name not in names]
        params = differing(points)
        write_csv(folder / "sweep.csv", *_table(points, params))
        pooled, notes = pool_folds(points)
        compared = compare(pooled)
        if any(UNKNOWN_PEOPLE in table.notes for table in compared.tables):
            log.warning("%s", UNKNOWN_PEOPLE)
        write_text(folder / "sweep.md", _markdown(folder.name, compared, points, params, notes=notes))
        figures = draw_pictures(compared, folder)
        write_text(folder / "sweep.html", _page(folder, compared, point_table(points, params), figures, notes=notes))
    except Exception as error:  # a sweep must not fail because of its summary
        log.warning("the tables of %s could not all be written: %s: %s", folder, type(error).__name__, error)


def _page(
    folder: Path, compared: Comparison, points: PointTable, figures: Mapping[str, Path], *, notes: Sequence[str]
) -> str:
    """Return sweep.html. The number of completed points is a warning if there are others."""
    done, all_points = sum(run.status == "completed" for run in points.runs), len(points.runs)
    text = f"{done} of {count(all_points, 'point')} completed"
    return to_html(
        compared,
        figures,
        folder=folder,
        title=folder.name,
        subtitle=text if done == all_points else "",
        notes=[*([] if done == all_points else [text]), *notes],
        points=points,
    )


def _table(points: Sequence[Run], params: Sequence[Parameters]) -> tuple[list[str], list[list[Any]]]:
    """Return the header and the rows of sweep.csv."""
    columns = list(params[0]) if params else []
    metrics = list(dict.fromkeys(name for run in points for name in run.metrics))
    header = ["point", "status", "seed", *columns, "best_epoch", "best_value"]
    header += [*metrics, "fit_s", "train_images_per_s", "error"]
    rows = [
        [
            *(run.folder.name, run.status, run.seed),
            *(None if each[key] is None else csv_value(each[key]) for key in columns),
            *(number(run.result("best", key)) for key in ("epoch", "value")),
            *(run.metrics.get(name) for name in metrics),
            *(number(run.result("timing", key)) for key in ("fit_s", "train_images_per_s")),
            run.error,
        ]
        for run, each in zip(points, params, strict=True)
    ]
    return header, [[_integer(value) for value in row] for row in rows]


def _markdown(
    name: str, compared: Comparison, points: Sequence[Run], params: Sequence[Parameters], *, notes: Sequence[str]
) -> str:
    done = sum(run.status == "completed" for run in points)
    parts = [f"# {markdown(name)}: {done} of {count(len(points), 'point')} completed"]
    parts += ["\n".join(f"- {markdown(note)}" for note in notes)] if notes else []
    sentence = markdown(compared.not_comparable)
    parts += [sentence[0].upper() + sentence[1:] + "."] if sentence else []
    parts += [to_markdown(compared, with_unranked=False).strip()] if compared.tables else []
    if points:
        table = point_table(points, params)
        parts += ["## Points", align(table.header, table.rows, table.numbers)]
    return "\n\n".join(parts) + "\n"


def point_table(points: Sequence[Run], params: Sequence[Parameters]) -> PointTable:
    """Return the table of all points, finished or not."""
    names = short_names(list(params[0]) if params else [])
    monitors = sorted({str(run.result("best", "monitor")) for run in points if run.result("best", "monitor")})
    header = [
        "point",
        "status",
        *names.values(),
        "seed",
        f"best {' or '.join(monitors)}".strip(),
        "at epoch",
        "fit (s)",
    ]
    rows = [
        [
            run.folder.name,
            run.status,
            *(format_value(each[key]) for key in names),
            format_value(run.seed),
            _shown(run.result("best", "value"), "{:.4g}"),
            _shown(run.result("best", "epoch"), "{:.0f}", add=1),  # counted from 1, as on the console
            _shown(run.result("timing", "fit_s"), "{:,.1f}"),
        ]
        for run, each in zip(points, params, strict=True)
    ]
    numbers = [False, False, *(_numeric([each[key] for each in params]) for key in names), True, True, True, True]
    if any(run.error for run in points):
        header, numbers = [*header, "error"], [*numbers, False]
        rows = [
            [*row, textwrap.shorten(run.error, 80, placeholder=" ...")] for row, run in zip(rows, points, strict=True)
        ]
    return PointTable(header, rows, numbers, points)


def _numeric(values: Sequence[Any]) -> bool:
    return all(number(value) is not None for value in values if value is not None)


def _shown(value: Any, form: str, *, add: int = 0) -> str:
    known = number(value)
    return "-" if known is None else form.format(known + add)


def _integer(value: Any) -> Any:
    """Return an integral float as an int, and any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
