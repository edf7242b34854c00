"""A comparison as LaTeX tables with booktabs, for a paper."""

import math
import re
from collections.abc import Sequence

from agebench.comparison.baselines import Baseline
from agebench.comparison.caption import heading
from agebench.comparison.cells import Column, config_columns, further_columns, gap_columns, ranking_column
from agebench.comparison.formatting import NONE, form_of, thousands
from agebench.comparison.tables import Comparison, Row, Table, shown_metrics
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
    """Return one booktabs table per protocol: best values in bold, ± over seeds, stars for significant differences."""
    return PREAMBLE + "\n" + "\n".join(_table(table, i) for i, table in enumerate(comparison.tables, start=1))


def escape(text: str) -> str:
    """Return a text for LaTeX, with its special characters escaped and control characters as spaces."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return "".join(ESCAPES.get(character, character) for character in printable)


def _table(table: Table, number: int) -> str:
    config = config_columns(table)
    results = [ranking_column(table), *further_columns(table, arrows=True)]
    metrics = [table.metric, *shown_metrics(table)]
    body = [[escape(cell) for cell in column.cells] for column in config]
    body += [_best_in_bold(column, metric, table) for column, metric in zip(results, metrics, strict=True)]
    body[len(config)] = [cell + _stars(row) for cell, row in zip(body[len(config)], table.rows, strict=True)]
    columns = [*config, *results]
    for column in gap_columns(table):
        columns, body = [*columns, column], [*body, [_minus(escape(cell)) for cell in column.cells]]
    sizes = [thousands(row.group.average("params", "total")) for row in table.rows]
    if len(set(sizes)) > 1:
        columns, body = [*columns, Column("parameters", sizes)], [*body, sizes]
    lines = [_line([escape(column.header) for column in columns]), "\\midrule"]
    lines += [_line(cells) for cells in zip(*body, strict=True)]
    if table.baselines:
        lines.append("\\midrule")
        for each in table.baselines:
            cells = _baseline(each, metrics, table, before=len(config))
            lines.append(_line([*cells, *["--"] * (len(columns) - len(cells))]))
    alignment = "".join("r" if column.number else "l" for column in columns)
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{escape(heading(table))}. {_explanation(table)}}}",
            f"\\label{{tab:{_label(table)}{'' if number == 1 else f'-{number}'}}}",
            f"\\begin{{tabular}}{{{alignment}}}",
            "\\toprule",
            *lines,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}\n",
        ]
    )


def _best_in_bold(column: Column, metric: str, table: Table) -> list[str]:
    """Return the cells of a metric; those of the best mean over ranked groups are bold."""
    means = [math.nan if row.rank is None else row.group.mean(metric) for row in table.rows]
    costs = [find(metric).cost(mean) if math.isfinite(mean) else math.inf for mean in means]
    best = min(costs, default=math.inf)
    cells = [_minus(escape(cell)) for cell in column.cells]
    bold = len(costs) > 1 and math.isfinite(best)
    return [f"\\textbf{{{cell}}}" if bold and cost == best else cell for cell, cost in zip(cells, costs, strict=True)]


def _minus(number: str) -> str:
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", "--" if number == NONE else number)


def _stars(row: Row) -> str:
    p = row.adjusted
    stars = 0 if p is None or not math.isfinite(p) else sum(p < level for level in LEVELS)
    return f"$^{{{'*' * stars}}}$" if stars else ""


def _baseline(baseline: Baseline, metrics: Sequence[str], table: Table, *, before: int) -> list[str]:
    cells = [f"\\textit{{{escape(baseline.name)}}}", *["--"] * (before - 1)]
    for metric in metrics:
        value = baseline.metrics.get(metric)
        form = form_of(metric, unit=table.unit, images=table.images)
        cells.append("--" if value is None else _minus(form(value)))
    return cells


def _explanation(table: Table) -> str:
    sentences = ["Best values are bold."]
    if folds := len(table.runs[0].folds):
        sentences.append(f"Pooled over {folds} folds.")
    if any(len(row.group.runs) > 1 for row in table.rows):
        sentences.append("$\\pm$: standard deviation over $n$ seeds.")
    if any(row.interval for row in table.rows):
        sentences.append("Brackets: 95\\% bootstrap interval.")
    if table.paired and table.paired.differences:
        levels = ", ".join(f"{'*' * i}: $p < {level:g}$" for i, level in enumerate(LEVELS, start=1))
        sentences.append(
            f"Stars: worse than the best row ({levels}; paired bootstrap over {escape(table.paired.over)}, Holm)."
        )
    return " ".join(sentences)


def _label(table: Table) -> str:
    return re.sub(r"[^a-z0-9]+", "-", table.protocol.lower()).strip("-") or "comparison"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
