"""Draws results/throughput.csv and results/sweeps.csv as bars: `python -m benchmarks.chart`."""

import csv
from pathlib import Path

from matplotlib.axes import Axes

from agebench.report.style import COLOURS, GREY, new_figure, plot_style

RESULTS = Path(__file__).parent / "results"
GOAL = {"mlp": 0.8}  # share of the bare loop; 0.97 for the others


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def bars(axes: Axes, names: list[str], values: list[float], *, text: str, unit: str) -> None:
    places = range(len(names))
    axes.barh(places, values, color=COLOURS[0], height=0.7)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel(text)
    for place, value in zip(places, values, strict=True):
        axes.text(value, place, f"{value:.2f}{unit} ", va="center", ha="right", fontsize=8, color="white")
    axes.set_xlim(0, 1.15 * max(values))


def main() -> None:
    """Write results/throughput.png and results/sweeps.png."""
    measured, ways = rows("throughput.csv"), rows("sweeps.csv")
    with plot_style():
        figure = new_figure(6.5, 3.4, "agebench.train compared with a bare loop")
        axes = figure.subplots()
        names = [f"{each['model']}, {each['precision'].partition('-')[0].replace('32', 'fp32')}" for each in measured]
        bars(
            axes, names, [float(each["share"]) for each in measured], text="share of the bare loop's images/s", unit=""
        )
        for place, each in enumerate(measured):
            goal = GOAL.get(each["model"], 0.97)
            axes.plot([goal, goal], [place - 0.42, place + 0.42], color=COLOURS[1], label=None if place else "goal")
        figure.legend(loc="outside lower right", fontsize=8)
        figure.savefig(RESULTS / "throughput.png")
        figure = new_figure(6.5, 2.4, "a sweep of 16 points: the cost of a further job beyond its training")
        axes = figure.subplots()
        costs = [float(each["a further job beyond it, s"]) for each in ways]
        bars(axes, [each["way"] for each in ways], costs, text="seconds per job", unit=" s")
        axes.axvline(0.5, color=GREY, linestyle=":")
        figure.savefig(RESULTS / "sweeps.png")


if __name__ == "__main__":
    main()
