"""The picture of decisions at an age limit."""

from pathlib import Path

import numpy as np
import pytest

from agebench.report.decisions import draw_decisions, write_decisions
from agebench.report.style import plot_style

AGES = np.arange(15.0, 50)
DECISION = {
    "age_limit": 18.0,
    "challenge_ages": [18.0, 21.0, 25.0],
    "acceptable": 0.01,
    "sentence": "25 is the lowest of the challenge ages.",
    "notes": ["only 12 images of 12 people are below 18: the false-adult rate is uncertain"],
}


def curves(*, minors: bool = True) -> dict[str, np.ndarray]:
    falling = np.clip((30 - AGES) / 15, 0, 1) if minors else np.full(len(AGES), np.nan)
    rising = 1 - np.clip((30 - AGES) / 15, 0, 1)
    found = {"challenge_age": AGES}
    for name, rate, side, count in (("adult", falling, "below", 12 * minors), ("minor", rising, "above", 90)):
        found |= {f"false_{name}_rate": rate, f"false_{name}_rate_low": rate * 0.8, f"false_{name}_rate_high": rate}
        found |= {f"images_{side}": np.full(len(AGES), count), f"people_{side}": np.full(len(AGES), count)}
    return found


def test_both_rates_their_bands_and_the_limit_are_drawn() -> None:
    with plot_style():
        figure = draw_decisions(curves(), DECISION, title="t")

    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    adults = lines["a person below 18 passes (false adult), 12 images"]
    np.testing.assert_array_equal(adults.get_ydata(), curves()["false_adult_rate"])
    assert list(lines["age limit: 18"].get_xdata()) == [18, 18]
    assert list(lines["acceptable: 1%"].get_ydata()) == [0.01, 0.01]
    assert len(axes.collections) == 2
    low, high = axes.get_xlim()
    assert low <= 18 < 25 <= high


def test_a_rate_without_images_is_not_drawn() -> None:
    with plot_style():
        figure = draw_decisions(curves(minors=False), DECISION, title="t")

    assert len(figure.axes[0].collections) == 1


@pytest.mark.filterwarnings("error")
def test_the_picture_is_written_with_its_note(tmp_path: Path) -> None:
    path = write_decisions(tmp_path / "report", curves(), DECISION, title="t")

    assert path == tmp_path / "report" / "decision.png"
    assert path.stat().st_size > 10_000
