"""Mean absolute error and bias at each true age, with 95% intervals."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from agebench.files import write_csv
from agebench.identity_groups import group_codes
from agebench.metrics.bootstrap import FEW, central_levels, draw, effective_groups
from agebench.report.outcome import Array, Outcome
from agebench.report.style import COLOURS, GREY, add_note, new_figure

RESAMPLES = 2_000  # for each age; enough for a figure
WIDTHS = (1, 2, 5, 10)  # years
ENOUGH = 0.8  # share of images in cells with an interval


def errors_by_label(outcome: Outcome, cell: Array | None = None) -> tuple[Array, Array, Array]:
    """Return the number of images (int64), MAE and bias (float64, in the target's unit) per cell, shape (C,) each.

    Bias is the mean of estimate minus true age: above 0 the model overestimates. A cell without images has NaN.

    Args:
        outcome: Predictions of the test images.
        cell: The cell of each label in [0, C), int64, shape (R,); None if each label is a cell.
    """
    cell = np.arange(len(outcome.values)) if cell is None else cell
    here, count = cell[outcome.target], int(cell.max(initial=-1)) + 1
    error = _errors(outcome)
    images = np.bincount(here, minlength=count)  # (N,) -> (C,)
    known = np.where(images > 0, images, np.nan)
    mae = np.bincount(here, weights=np.abs(error), minlength=count) / known
    bias = np.bincount(here, weights=error, minlength=count) / known
    return images, mae, bias


def intervals_by_label(outcome: Outcome, cell: Array | None = None) -> tuple[Array, Array, Array]:
    """Return the number of people per cell, int64, shape (C,), and the 95% intervals of MAE and bias, (C, 2) each.

    An interval is an expanded percentile bootstrap interval over the people with an image in the cell, or over the
    images if the people are unknown. It is NaN if there are fewer than two.

    Args:
        outcome: Predictions of the test images.
        cell: As for errors_by_label.
    """
    cell = np.arange(len(outcome.values)) if cell is None else cell
    error = _errors(outcome)
    people = np.zeros(int(cell.max(initial=-1)) + 1, dtype=np.int64)
    found = np.full((len(people), 2, 2), np.nan)  # cell, low or high, MAE or bias
    for number in np.unique(cell[outcome.target]):
        here = cell[outcome.target] == number
        codes, count = group_codes(None if outcome.people is None else outcome.people[here], int(here.sum()))
        people[number] = count
        if count < 2 or not np.isfinite(error[here]).all():
            continue
        sums = [np.bincount(codes, weights=each, minlength=count) for each in (np.abs(error[here]), error[here])]
        sizes = np.bincount(codes, minlength=count)
        means = [
            times @ np.stack(sums, axis=1) / (times @ sizes)[:, None]  # (b, G) @ (G, 2) -> (b, 2)
            for times in draw(count, resamples=RESAMPLES, seed=0)
        ]
        found[number] = np.quantile(np.concatenate(means), central_levels(effective_groups(codes, count)), axis=0)
    return people, found[:, :, 0], found[:, :, 1]


def age_cells(outcome: Outcome) -> tuple[Array, int]:
    """Return the cell of each age, int64, shape (R,), and the width of a cell in years: 1, 2, 5 or 10.

    It is the smallest width for which at least 80% of the images are in a cell with enough people for an interval.
    """
    for width in WIDTHS:
        cell = (outcome.values // width).astype(np.int64)
        cell -= cell.min(initial=cell[0])
        here = cell[outcome.target]
        people = outcome.people if outcome.people is not None else np.arange(len(outcome))
        pairs = np.unique(np.stack([here, group_codes(people, len(here))[0]]), axis=1)[0]  # each person once per cell
        if (np.bincount(pairs, minlength=cell.max() + 1)[here] >= FEW).mean() >= ENOUGH:
            break
    return cell, width


def write_errors_by_age(path: Path, outcome: Outcome) -> Path:
    """Write one row per age that has images, and return the path. Unknown intervals are empty."""
    people, *bounds = intervals_by_label(outcome)
    images, *means = errors_by_label(outcome)
    rows = []
    for label in np.flatnonzero(images):
        row: list[object] = [f"{outcome.values[label]:g}", int(images[label])]
        row += [] if outcome.people is None else [int(people[label])]
        for mean, interval in zip(means, bounds, strict=True):
            row += [f"{mean[label]:.4f}", *("" if np.isnan(end) else f"{end:.4f}" for end in interval[label])]
        rows.append(row)
    columns = [f"{name}{end}" for name in ("mae", "bias") for end in ("", "_low", "_high")]
    return write_csv(path, ["age", "images", *(["people"] if outcome.people is not None else []), *columns], rows)


def draw_errors_by_age(outcome: Outcome, *, title: str) -> Figure:
    """Return a figure with mean absolute error and bias (upper panel) and the number of images (lower panel).

    Each has its 95% interval. With few images, ages are taken together, see age_cells. Cells with fewer than 20 people
    (or images, if the people are unknown) have hollow markers, and no line and interval unless all cells have so few.
    """
    cell, years = age_cells(outcome)
    cells = np.unique(cell)
    places = np.array([outcome.values[cell == each].mean() for each in cells])
    images, mae, bias = (each[cells] for each in errors_by_label(outcome, cell))
    people, mae_bounds, bias_bounds = (each[cells] for each in intervals_by_label(outcome, cell))
    figure = new_figure(6.6, 5.2, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.axhline(0, color=GREY, linewidth=0.8)
    few = people < FEW
    many = ~few if not few.all() else people > 1  # if all depend on few, intervals are all that there is
    lines = (
        ("mean absolute error", mae, mae_bounds, {"color": COLOURS[0], "marker": "s"}),
        ("bias (estimate - true age)", bias, bias_bounds, {"color": COLOURS[1], "marker": "o", "linestyle": "--"}),
    )
    for name, mean, bounds, style in lines:
        known = many & np.isfinite(bounds).all(1)
        errors = np.where(known, np.stack([mean - bounds[:, 0], bounds[:, 1] - mean]), np.nan)
        shown = np.where(many, mean, np.nan)
        face = {"markerfacecolor": "white"} if few.all() else {}
        upper.errorbar(places, shown, yerr=np.maximum(errors, 0), elinewidth=1, capsize=2, label=name, **style, **face)
        hollow = {**style, "linestyle": "", "markerfacecolor": "white", "markersize": 3, "alpha": 0.7}
        upper.plot(places[~many], mean[~many], **hollow)
    of = "images" if outcome.people is None else "people"
    if (few & (images > 0)).any():
        upper.plot([], [], "o", color=GREY, markerfacecolor="white", markersize=3, label=f"fewer than {FEW} {of}")
    if outcome.lookup_mae is not None:
        label = f"MAE of an identity lookup, without images: {outcome.lookup_mae:.2f}"
        upper.axhline(outcome.lookup_mae, color=COLOURS[2], linestyle=":", label=label)
    upper.set_ylabel(f"error ({outcome.unit})")
    upper.set_title(_heading(outcome, years))
    upper.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2, fontsize=8)
    upper.grid(True)
    gaps = np.diff(np.sort(outcome.values))
    counts = np.bincount(outcome.target, minlength=len(outcome.values))
    lower.bar(outcome.values, counts, width=0.8 * (gaps.min() if len(gaps) else 1), color=GREY)
    lower.set(xlabel=f"true age ({outcome.unit})", ylabel="images of\neach age")
    lower.grid(True, axis="y")
    add_note(figure, outcome.note)
    return figure


def _errors(outcome: Outcome) -> Array:
    """Return estimate minus true age, float64, shape (N,)."""
    return np.asarray(outcome.point - outcome.values[outcome.target], dtype=np.float64)


def _heading(outcome: Outcome, years: int) -> str:
    error = _errors(outcome)
    each = "each age" if years == 1 else f"ages in groups of {years} years"
    of = "images" if outcome.people is None else "people"
    return (
        f"At which ages is it wrong? {len(outcome):,} images: mean absolute error {np.abs(error).mean():.2f} "
        f"{outcome.unit}, bias {error.mean():+.2f} {outcome.unit};\n{each}, with 95% intervals over {of}"
    )
