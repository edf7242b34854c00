"""A comparison as LaTeX tables with booktabs, for a paper."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from agebench.comparison.baselines import Baseline
from agebench.comparison.caption import caption, heading
from agebench.comparison.cells import (
    Column,
    config_columns,
    difference_columns,
    further_columns,
    gap_columns,
    ranking_column,
)
from agebench.comparison.formatting import NONE, form_of, thousands
from agebench.comparison.overview import Overview, overviews
from agebench.comparison.tables import Comparison, Row, Table
from agebench.metrics.table import find

LEVELS = (0.05, 0.01, 0.001)  # one star for each level that the corrected p-value is below
PREAMBLE = "% \\usepackage{booktabs}  % also needs XeLaTeX or LuaLaTeX if names are Japanese\n"
ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "Δ": r"$\Delta$",
}


def to_latex(comparison: Comparison) -> str:
    """Return one booktabs table per protocol: best values in bold, stars for significant differences, notes below.

    Runs that are ranked within groups of test images have one more table, with a column per group.
    """
    tables = [_overview(overview) for overview in overviews(comparison)]
    tables += [_table(table, i) for i, table in enumerate(comparison.tables, start=1)]
    return PREAMBLE + "\n" + "\n".join(tables)


def escape(text: str) -> str:
    """Return a text for LaTeX, with its special characters escaped and control characters as spaces."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    escaped = "".join(ESCAPES.get(character, character) for character in printable)
    return escaped.replace("--", "-{}-")  # `--metric` is no dash


def _overview(overview: Overview) -> str:
    columns = list(overview.columns)
    first = len(columns) - len(overview.means)
    columns[:first] = [_escaped(column) for column in columns[:first]]
    columns[first:] = [_bold(*each) for each in zip(columns[first:], overview.means, strict=True)]
    return _float(
        columns,
        [[f"\\textit{{{escape(name)}}}", *map(_number, cells)] for name, *cells in overview.baseline_rows],
        above=f"{escape(overview.heading)}. Best values are bold.",
        label=_label(f"{overview.protocol} by group"),
        below=[overview.caption],
    )


def _table(table: Table, number: int) -> str:
    columns = _columns(table)
    return _float(
        columns,
        [_baseline(each, columns, table) for each in table.baselines],
        above=f"{escape(heading(table))}. {_explanation(table)}",
        label=f"{_label(table.protocol)}{'' if number == 1 else f'-{number}'}",
        below=[caption(table, complete=False), *(f"{note}." for note in table.notes)],
    )


def _float(
    columns: Sequence[Column], baselines: Sequence[Sequence[str]], *, above: str, label: str, below: Sequence[str]
) -> str:
    """Return a table environment.

    Args:
        columns: The columns, with their cells in LaTeX.
        baselines: The cells of each baseline in LaTeX.
        above: The caption in LaTeX.
        label: The label, without `tab:`.
        below: Paragraphs below the table.
    """
    lines = [_line([escape(column.header) for column in columns]), "\\midrule"]
    lines += [_line(cells) for cells in zip(*(column.cells for column in columns), strict=True)]
    if baselines:
        lines += ["\\midrule", *map(_line, baselines)]
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{above}}}",
            f"\\label{{tab:{label}}}",
            f"\\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in columns)}}}",
            "\\toprule",
            *lines,
            "\\bottomrule",
            "\\end{tabular}",
            "\\par\\smallskip",
            "\\begin{minipage}{\\linewidth}\\footnotesize",
            "\n\n".join(map(escape, below)),
            "\\end{minipage}",
            "\\end{table}\n",
        ]
    )


def _columns(table: Table) -> list[Column]:
    """Return the columns with their cells in LaTeX. Stars show the p-value of the difference to the best row."""
    ranking = _best_in_bold(ranking_column(table), table)
    sizes = [thousands(row.group.average("params", "total")) for row in table.rows]
    return [
        *map(_escaped, config_columns(table)),
        replace(ranking, cells=[cell + _stars(row) for cell, row in zip(ranking.cells, table.rows, strict=True)]),
        *map(_numbers, difference_columns(table)[:1]),
        *(_best_in_bold(each, table) for each in further_columns(table, arrows=True)),
        *map(_numbers, gap_columns(table)),
        *([Column("parameters", sizes)] if len(set(sizes)) > 1 else []),
    ]


def _escaped(column: Column) -> Column:
    return replace(column, cells=[escape(cell) for cell in column.cells])


def _numbers(column: Column) -> Column:
    return replace(column, cells=[_number(cell) for cell in column.cells])


def _best_in_bold(column: Column, table: Table) -> Column:
    """Return the column of a metric with its cells in LaTeX; those of the best mean over ranked groups are bold."""
    return _bold(column, [math.nan if row.rank is None else row.group.mean(column.metric) for row in table.rows])


def _bold(column: Column, means: Sequence[float]) -> Column:
    costs = [find(column.metric).cost(mean) if math.isfinite(mean) else math.inf for mean in means]
    best = min(costs, default=math.inf)
    column, bold = _numbers(column), len(costs) > 1 and math.isfinite(best)
    bolds = [f"\\textbf{{{cell}}}" if bold and c == best else cell for cell, c in zip(column.cells, costs, strict=True)]
    return replace(column, cells=bolds)


def _number(cell: str) -> str:
    """Return a cell in LaTeX, with minus signs and a dash for no value."""
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", "--" if cell == NONE else escape(cell))


def _stars(row: Row) -> str:
    p = row.adjusted
    stars = 0 if p is None or not math.isfinite(p) else sum(p < level for level in LEVELS)
    return f"$^{{{'*' * stars}}}$" if stars else ""


def _baseline(baseline: Baseline, columns: Sequence[Column], table: Table) -> list[str]:
    cells = [f"\\textit{{{escape(baseline.name)}}}"]
    for column in columns[1:]:
        value = baseline.metrics.get(column.metric)
        form = form_of(column.metric, unit=table.unit, images=table.images)
        cells.append(_number(column.baselines.get(baseline.name, NONE) if value is None else form(value)))
    return cells


def _explanation(table: Table) -> str:
    """Return the caption above the table. The caption of the other formats is below it."""
    if not (table.paired and table.paired.differences):
        return "Best values are bold."
    levels = ", ".join(f"{'*' * i}: $p < {level:g}$" for i, level in enumerate(LEVELS, start=1))
    return f"Best values are bold. Stars: worse than the best row ({levels})."


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "comparison"


def _line(cells: Sequence[str]) -> str:
    # A row that begins with a bracket or a star would be an argument of the line break before it.
    return ("{}" if cells[0].startswith(("[", "*")) else "") + " & ".join(cells) + r" \\"
