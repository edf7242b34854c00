"""The cumulative score: the share of images whose absolute error is at most k years."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from agebench.files import write_csv
from agebench.identity_groups import group_codes
from agebench.metrics.bootstrap import central_levels, draw, effective_groups
from agebench.report.outcome import Array, Outcome
from agebench.report.style import COLOURS, GREY, add_note, new_figure

MARKED = 5  # years, the tolerance of the metric cs5
MAX_YEARS = 30
RESAMPLES = 2_000


def cumulative_scores(outcome: Outcome) -> tuple[Array, Array]:
    """Return the share of images with an absolute error of at most k years, and its 95% interval.

    The interval is an expanded percentile bootstrap interval over people, or images if the people are unknown.

    Returns:
        Shares for k = 0, 1, ..., float64, shape (K,), up to a share of 0.99 or 30 years; intervals, shape (2, K), NaN
        for fewer than two people.
    """
    error = np.abs(outcome.point - outcome.values[outcome.target])  # (N,)
    last = int(np.clip(np.ceil(np.nanquantile(error, 0.99)), MARKED, MAX_YEARS)) if np.isfinite(error).any() else MARKED
    within = error[:, None] <= np.arange(last + 1)  # (N, K)
    codes, count = group_codes(outcome.people, len(error))
    if count < 2:
        return within.mean(0), np.full((2, last + 1), np.nan)
    sums = np.stack([np.bincount(codes, weights=each, minlength=count) for each in within.T], axis=1)  # (G, K)
    sizes = np.bincount(codes, minlength=count)
    resampled = [times @ sums / (times @ sizes)[:, None] for times in draw(count, resamples=RESAMPLES, seed=0)]
    return within.mean(0), np.quantile(
        np.concatenate(resampled), central_levels(effective_groups(codes, count)), axis=0
    )


def write_cs_curve(path: Path, outcome: Outcome) -> Path:
    """Write the share and its interval for each number of years, and return the path."""
    share, (low, high) = cumulative_scores(outcome)
    rows = [[k, *(f"{x:.4f}" for x in row)] for k, row in enumerate(zip(share, low, high, strict=True))]
    return write_csv(path, ["years", "share", "low", "high"], rows)


def draw_cs_curve(outcome: Outcome, *, title: str) -> Figure | None:
    """Return a figure with the curve and its interval; None unless the unit is years and there are images."""
    if not outcome.ordered or outcome.unit != "years" or not len(outcome):
        return None
    share, (low, high) = cumulative_scores(outcome)
    years = np.arange(len(share))
    figure = new_figure(5.6, 3.9, title)
    axes = figure.subplots()
    axes.fill_between(years, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    axes.plot(years, share, color=COLOURS[0], marker="s", markersize=3.5)
    axes.plot([MARKED, MARKED, 0], [0, share[MARKED], share[MARKED]], color=GREY, linestyle=":", linewidth=1)
    axes.annotate(
        f"{share[MARKED]:.0%} within {MARKED} years",
        (MARKED, share[MARKED]),
        xytext=(8, -10),
        textcoords="offset points",
    )
    of = "images" if outcome.people is None else "people"
    axes.set(xlim=(0, years[-1]), ylim=(0, 1.02), xlabel="error of at most ... (years)", ylabel="share of images")
    axes.set_title(
        f"How many estimates are close enough? {len(outcome):,} images;\ncumulative score, band: 95% interval over {of}"
    )
    axes.grid(True)
    add_note(figure, outcome.note)
    return figure
