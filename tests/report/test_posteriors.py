"""The posteriors of single images."""

import csv

import numpy as np
import pytest

from agebench.report.outcome import Outcome
from agebench.report.posteriors import draw_posteriors, write_posteriors
from agebench.report.report_images import ReportImages
from agebench.report.selection import single_images
from agebench.report.style import plot_style


def images_of(outcome: Outcome) -> ReportImages:
    rows = np.arange(len(outcome))
    pixels = np.zeros((len(rows), 1, 4, 4), dtype=np.uint8)
    return ReportImages(rows, pixels, pixels[:0], pixels[:0], rows[:0])


def test_the_table_has_the_probability_of_each_label_of_each_image(tmp_path, digits_outcome: Outcome) -> None:
    path = write_posteriors(tmp_path / "posteriors.csv", digits_outcome)

    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    chosen = single_images(digits_outcome)
    assert len(rows) == 10 * len(chosen)
    found = np.array([float(row["probability"]) for row in rows]).reshape(-1, 10)
    np.testing.assert_allclose(found, digits_outcome.posterior[chosen], atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_the_bar_of_the_true_label_has_its_own_colour(digits_outcome: Outcome) -> None:
    with plot_style():
        figure = draw_posteriors(digits_outcome, images_of(digits_outcome), title="t")

    assert figure is not None
    assert "probability of each label" in figure.axes[0].get_title()
    panels = [axes for axes in figure.axes if axes.patches]
    for axes, row in zip(panels, single_images(digits_outcome), strict=True):
        colours = [bar.get_facecolor() for bar in axes.patches]
        (odd,) = [i for i, colour in enumerate(colours) if colours.count(colour) == 1]
        assert odd == digits_outcome.target[row]
        assert axes.patches[odd].get_height() == digits_outcome.posterior[row, odd]


def test_of_many_classes_the_most_likely_and_the_true_one_are_drawn() -> None:
    posterior = np.random.default_rng(0).dirichlet(np.ones(73), size=20)
    target = posterior.argmin(axis=1)
    names = tuple(f"n{i}" for i in range(73))
    outcome = Outcome(target.astype(str), target, posterior, target * 1.0, np.arange(73.0), names, False, "")

    with plot_style():
        figure = draw_posteriors(outcome, images_of(outcome), title="t")

    assert figure is not None
    panels = [axes for axes in figure.axes if axes.patches]
    for axes, row in zip(panels, single_images(outcome), strict=True):
        expected = sorted({*np.argsort(posterior[row])[-11:].tolist(), int(target[row])})
        assert [text.get_text() for text in axes.get_xticklabels()] == [f"n{i}" for i in expected]
    assert "probability of the most likely labels" in figure.axes[0].get_title()
