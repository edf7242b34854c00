"""A comparison as Markdown, CSV, HTML, JSON or LaTeX."""

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agebench.comparison.baselines import Baseline
from agebench.comparison.caption import caption, heading, unranked_sentence
from agebench.comparison.cells import lay_out
from agebench.comparison.groups import Group, count
from agebench.comparison.html_page import to_html
from agebench.comparison.latex import to_latex
from agebench.comparison.overview import overviews
from agebench.comparison.parameters import format_value
from agebench.comparison.tables import Comparison, Row, Table
from agebench.files import csv_text
from agebench.metrics.by_group import Gap
from agebench.metrics.table import find
from agebench.text import align_columns, markdown

WIDTH = 120  # maximum width of captions and notes; tables may be wider


def to_markdown(comparison: Comparison, *, with_unranked: bool = True) -> str:
    """Return the tables, captions, notes and incomplete runs as Markdown that is also readable as plain text."""
    parts = []
    for overview in overviews(comparison):
        cells = overview.cells
        title = f"## {markdown(overview.heading)}"
        parts += [title, align(cells.header, cells.rows, cells.numbers), _wrap(overview.caption)]
    for table in comparison.tables:
        cells = lay_out(table)
        notes = [_wrap(note, "- ") for note in table.notes]
        title = f"## {markdown(heading(table))}"
        parts += [title, align(cells.header, cells.rows, cells.numbers), _wrap(caption(table))]
        parts += ["\n".join(notes)] if notes else []
    if comparison.unranked and with_unranked:
        lines = [_wrap(unranked_sentence(run), "- ") for run in comparison.unranked]
        parts += [f"## Not ranked: {count(len(lines), 'run')} that did not complete", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def align(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool]) -> str:
    """Return a Markdown table with aligned columns."""
    escaped = [[markdown(cell).replace("|", "\\|") for cell in line] for line in (header, *rows)]
    aligned = align_columns(escaped[0], escaped[1:], numbers, min_width=3)
    rule = ["-" * (len(cell) - 1) + (":" if n else "-") for cell, n in zip(aligned[0], numbers, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (aligned[0], rule, *aligned[1:]))


def to_csv(comparison: Comparison) -> str:
    """Return a CSV table with one row per group and unrounded numbers. Missing values are empty."""
    parameters = list(dict.fromkeys(key for table in comparison.tables for key in table.parameters))
    metrics = list(dict.fromkeys(name for table in comparison.tables for run in table.runs for name in run.metrics))
    fixed = ("metric", "mean", "std", "low", "high", "difference", "difference_low", "difference_high", "p", "p_holm")
    size = ("epochs", "fit_s", "train_images_per_s", "parameters")
    group = ["group"] if any(table.group for table in comparison.tables) else []
    by_fold = ["by_fold"] if any(run.folds for table in comparison.tables for run in table.runs) else []
    gaps = list(dict.fromkeys(name for table in comparison.tables for row in table.rows for name in _gaps(row, table)))
    of_gap = ("value", "low", "high", "p", "worst", "best")
    header = ["protocol", "split_sha", *group, "rank", *parameters, "n", "seeds", *fixed, *by_fold]
    header += [*(f"gap_{name}{'' if each == 'value' else f'_{each}'}" for name in gaps for each in of_gap)]
    header += [*metrics, *size, "folders"]
    rows = []
    for table in comparison.tables:
        for row in table.rows:
            found = _row(row, table)
            difference, interval = found["difference"] or {}, found["interval"] or [None, None]
            numbers = [found["metrics"].get(table.metric, {}).get(name) for name in ("mean", "std")]
            pair = [difference.get(name) for name in ("value", "low", "high", "p", "p_holm")]
            values = [
                *(table.protocol, table.split_sha, *([table.group] if group else []), found["rank"]),
                *(None if found["params"].get(key) is None else csv_value(found["params"][key]) for key in parameters),
                *(found["n"], " ".join(str(seed) for seed in found["seeds"] if seed is not None), table.metric),
                *(*numbers, *interval, *pair),
                *([" ".join(map(str, row.group.by_fold(table.metric)))] if by_fold else []),
                *((found.get("gaps", {}).get(name) or {}).get(each) for name in gaps for each in of_gap),
                *(found["metrics"].get(name, {}).get("mean") for name in metrics),
                *(found[name] for name in size),
                "; ".join(found["folders"]),
            ]
            rows.append(values)
    return csv_text(header, rows)


def to_json(comparison: Comparison) -> str:
    """Return all results as JSON with stable keys."""
    tables = [
        {
            "protocol": table.protocol,
            "split_sha": table.split_sha,
            "group": table.group or None,
            "metric": table.metric,
            "unit": table.unit,
            "parameters": list(table.parameters),
            "groups": [_row(row, table) for row in table.rows],
            "baselines": [
                {"name": each.name, "metrics": each.metrics, **({"gaps": _gaps(each, table)} if each.gaps else {})}
                for each in table.baselines
            ],
            "resampled": None
            if table.paired is None
            else {"over": table.paired.over, "groups": table.paired.drawn, "resamples": table.paired.resamples},
            "caption": caption(table),
            "notes": list(table.notes),
        }
        for table in comparison.tables
    ]
    unranked = [
        {"folder": str(run.folder), "status": run.status, "seed": run.seed, "error": run.error or None}
        for run in comparison.unranked
    ]
    results = {"tables": tables, "unranked": unranked, "not_comparable": comparison.not_comparable or None}
    return json.dumps(_without_nan(results), indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def notes_of(comparison: Comparison) -> list[str]:
    """Return the notes for stderr, for formats that cannot contain notes."""
    notes = [note for table in comparison.tables for note in table.notes]
    if comparison.unranked:
        notes.append(f"not ranked: {'; '.join(unranked_sentence(run) for run in comparison.unranked)}")
    return list(dict.fromkeys(notes))


def csv_value(value: Any) -> Any:
    """Return a parameter for a CSV cell: numbers unchanged, other values as text."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else format_value(value)


def _row(row: Row, table: Table) -> dict[str, Any]:
    group = row.group
    names = list(dict.fromkeys(name for run in group.runs for name in run.metrics))
    difference = None if row.difference is None else {**asdict(row.difference), "p_holm": row.adjusted}
    return {
        "rank": row.rank,
        "params": group.params,
        "n": len(group.runs),
        "seeds": [run.seed for run in group.runs],
        "metrics": {n: _metric(group, n) for n in names},
        "interval": None if row.interval is None else [_finite(bound) for bound in row.interval],
        "difference": None if difference is None else {key: _finite(value) for key, value in difference.items()},
        **({"gaps": _gaps(row, table)} if row.gaps else {}),
        "diverged": group.diverged,
        "epochs": group.average("epochs"),
        "fit_s": group.average("timing", "fit_s"),
        "train_images_per_s": group.average("timing", "train_images_per_s"),
        "parameters": group.average("params", "total"),
        "folders": [str(each.folder) for run in group.runs for each in run.folds or (run,)],
    }


def _gaps(row: Row | Baseline, table: Table) -> dict[str, dict[str, Any] | None]:
    """Return the gaps of a row by the column of the groups.

    The name is `coverage_sex` for other metrics than that of the ranks, and `age_standardised_sex` for such a gap.
    """
    found = {
        by if metric == table.metric else f"{find(metric).name}_{by}": _gap(gap)
        for (metric, by), gap in row.gaps.items()
    }
    return found | {f"age_standardised_{by}": _gap(gap) for by, gap in row.standardised.items()}


def _gap(gap: Gap | None) -> dict[str, Any] | None:
    if gap is None:
        return None
    bounds = {name: _finite(getattr(gap, name)) for name in ("value", "low", "high", "p")}
    return {"worst": gap.worst, "best": gap.best, **bounds, "values": dict(gap.values)}


def _metric(group: Group, name: str) -> dict[str, Any]:
    """Return mean and standard deviation over seeds, and the mean over seeds of each fold of pooled runs."""
    by_fold = group.by_fold(name)
    folds = {"by_fold": [_finite(value) for value in by_fold]} if by_fold else {}
    return {"mean": _finite(group.mean(name)), "std": _finite(group.std(name)), **folds}


def _without_nan(value: Any) -> Any:
    """Return the value with None instead of NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _wrap(text: str, bullet: str = "") -> str:
    return textwrap.fill(
        markdown(text),
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )


RENDERERS: Mapping[str, Callable[[Comparison], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "html": to_html,
    "json": to_json,
    "latex": to_latex,
}
