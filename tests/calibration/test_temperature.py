"""Temperature scaling against the logits of a softmax, scikit-learn's log loss and a grid search."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from agebench.calibration.temperature import fit_temperature, mean_nll, temper


def test_tempering_a_softmax_divides_its_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, size=(50, 7))

    found = temper(softmax(logits, axis=1), 2.5)

    np.testing.assert_allclose(found, softmax(logits / 2.5, axis=1), rtol=1e-9)


def test_a_label_of_probability_zero_stays_possible() -> None:
    found = temper(np.array([[1.0, 0.0, 0.0]], dtype=np.float32), 2.0)

    assert found[0] == pytest.approx([1 / (1 + 2e-6), 1e-6, 1e-6], rel=1e-5)  # the square root of 1e-12


@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_an_overconfident_or_underconfident_model_is_found(true_temperature) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, size=(5_000, 5))
    target = (softmax(logits, axis=1).cumsum(1) > rng.random((5_000, 1))).argmax(1)
    stated = softmax(logits * true_temperature, axis=1)

    found = fit_temperature(stated, target)

    assert found == pytest.approx(true_temperature, rel=0.08)
    grid = np.geomspace(true_temperature / 1.3, true_temperature * 1.3, 31)
    losses = [log_loss(target, softmax(logits * true_temperature / t, axis=1)) for t in grid]
    assert mean_nll(temper(stated, found), target) <= min(losses) + 1e-6


def test_the_most_probable_label_does_not_change() -> None:
    posterior = np.random.default_rng(2).dirichlet(np.ones(6), size=100)

    assert (temper(posterior, 7.0).argmax(1) == posterior.argmax(1)).all()
