"""The curve of `lr_find=true`: the training loss over a rising learning rate."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from agebench.report.outcome import Array
from agebench.report.style import COLOURS, GREY, add_finding, new_figure

LABELLED = (("valley", "o", COLOURS[2]), ("steepest point", "D", COLOURS[1]))


class RateCurve(NamedTuple):
    """A sweep of the learning rate, with an entry per step."""

    rates: Array  # ascending
    losses: Array
    smoothed: Array
    steepest: float | None  # suggested rates
    valley: float | None


def short_rate(rate: float) -> str:
    """Return a rate with two digits, such as 3.9e-3."""
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def draw_rate_curve(curve: RateCurve, *, title: str) -> Figure:
    """Return a figure with the loss of each step, the smoothed loss, and the suggested rates.

    Args:
        curve: The sweep.
        title: The data set and the network.
    """
    figure = new_figure(6.4, 4.0, title)
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, ".", color=GREY, alpha=0.5, markersize=4, markeredgewidth=0, label="each step")
    axes.plot(curve.rates, curve.smoothed, color=COLOURS[0], label="smoothed")
    for (name, marker, colour), rate in zip(LABELLED, (curve.valley, curve.steepest), strict=True):
        if rate is not None:
            height = float(np.interp(np.log(rate), np.log(curve.rates), curve.smoothed))
            axes.axvline(rate, color=colour, linewidth=1, linestyle=":", zorder=1)
            style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 7, "markeredgecolor": "white"}
            axes.plot(rate, height, linestyle="", label=f"{name}: {short_rate(rate)}", zorder=4, **style)
    low, high = float(curve.smoothed.min()), float(curve.smoothed[: max(1, len(curve.smoothed) // 10)].max())
    span = max(high - low, 0.02 * abs(high), 1e-12)
    axes.set(xscale="log", xlabel="learning rate (optim.lr)", ylabel="training loss before the step")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter(lambda rate, _: f"1e{round(np.log10(rate))}")
    axes.set_ylim(low - 0.3 * span, high + 0.6 * span)  # not to the losses of the divergence
    axes.grid(True)
    figure.legend(loc="outside lower center", ncols=4)
    add_finding(figure, _finding(curve))
    return figure


def _finding(curve: RateCurve) -> str:
    if curve.steepest is None or curve.valley is None:
        return "The loss falls at no rate."
    lowest = curve.rates[int(curve.smoothed.argmin())]
    return f"The loss falls fastest at {short_rate(curve.steepest)} and is lowest at {short_rate(lowest)}."
