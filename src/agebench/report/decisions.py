"""Error rates of decisions at an age limit, over the age from which a person passes."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from agebench.report.outcome import Array
from agebench.report.style import COLOURS, GREY, add_note, new_figure, plot_style

MARGIN = 10  # years below the limit and above the oldest challenge age
RATES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("false_adult_rate", "below", "passes (false adult)", {"color": COLOURS[1], "marker": "o", "linestyle": "--"}),
    ("false_minor_rate", "above", "is checked (false minor)", {"color": COLOURS[0], "marker": "s", "linestyle": "-"}),
)


def write_decisions(folder: Path, curves: Mapping[str, Array], decision: Mapping[str, Any], *, title: str) -> Path:
    """Write decision.png into a folder, which is created, and return its path.

    Args:
        folder: Output folder.
        curves: The columns of decision.csv, shape (A,) each.
        decision: `decision` of results.json.
        title: Title of the figure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with plot_style():
        figure = draw_decisions(curves, decision, title=title)
        figure.savefig(folder / "decision.png")
    return folder / "decision.png"


def draw_decisions(curves: Mapping[str, Array], decision: Mapping[str, Any], *, title: str) -> Figure:
    """Return a figure with both error rates and their 95% intervals, the limit and the challenge ages.

    Args:
        curves: The columns of decision.csv, shape (A,) each.
        decision: `decision` of results.json.
        title: Title of the figure.
    """
    limit, challenge_ages = decision["age_limit"], decision["challenge_ages"]
    ages = curves["challenge_age"]
    figure = new_figure(6.8, 4.6, title)
    axes = figure.subplots()
    for name, side, what, style in RATES:
        if np.isnan(curves[name]).all():
            continue
        count = f"{curves[f'images_{side}'][0]:,.0f} images"
        where = f"{'below' if side == 'below' else 'at or above'} {limit:g}"
        axes.fill_between(ages, curves[f"{name}_low"], curves[f"{name}_high"], color=style["color"], alpha=0.2, lw=0)
        axes.plot(ages, curves[name], label=f"a person {where} {what}, {count}", **style)
    axes.axvline(limit, color="black", linewidth=1, label=f"age limit: {limit:g}")
    axes.axhline(
        decision["acceptable"], color=GREY, linestyle=":", label=f"acceptable: {100 * decision['acceptable']:.3g}%"
    )
    for i, age in enumerate(challenge_ages[1:]):
        axes.axvline(age, color=GREY, linewidth=0.6, label=None if i else "challenge ages")
    axes.set(
        xlabel="challenge age: a person judged at least so old passes unchecked (years)",
        ylabel="share of images (band: 95% interval)",
        xlim=(max(ages[0], limit - MARGIN), min(ages[-1], challenge_ages[-1] + MARGIN)),
        ylim=(-0.02, 1.02),
    )
    axes.set_title(textwrap.fill(decision["sentence"], 90))
    axes.grid(True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize=8, columnspacing=1.5)
    add_note(figure, "; ".join(decision["notes"]))
    return figure
