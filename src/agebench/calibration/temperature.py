"""Temperature scaling of a posterior, after Guo et al. (2017), arXiv:1706.04599."""

import math

import numpy as np

from agebench.metrics.formulas import FLOOR
from agebench.metrics.predictions import Array

LOWEST, HIGHEST = 0.05, 20.0  # limits of the temperature


def temper(posterior: Array, temperature: float) -> Array:
    """Return the posterior with its logarithm divided by the temperature, float64, shape (N, R).

    For `head=softmax` this divides the logits. Other heads have no logits of the labels, so the logarithm of the
    posterior is used for all. Probabilities are clipped at FLOOR, as in the metric `nll`.

    Args:
        posterior: Probability of each label, shape (N, R).
        temperature: Above 1 the result is less confident, below 1 more. It never changes the most probable label.
    """
    scores = np.log(np.clip(posterior.astype(np.float64), FLOOR, None)) / temperature
    powers = np.exp(scores - scores.max(1, keepdims=True))
    found: Array = powers / powers.sum(1, keepdims=True)
    return found


def fit_temperature(posterior: Array, target: Array) -> float:
    """Return the temperature with the lowest mean negative log-likelihood of the true labels.

    Args:
        posterior: Probability of each label, shape (N, R).
        target: Indices of the true labels, shape (N,).
    """
    from scipy.optimize import minimize_scalar

    # The likelihood is concave in 1 / temperature, so there is one maximum.
    found = minimize_scalar(
        lambda log_temperature: mean_nll(temper(posterior, math.exp(log_temperature)), target),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
    )
    return math.exp(float(found.x))


def mean_nll(posterior: Array, target: Array) -> float:
    """Return the mean negative log-likelihood of the true labels, in nats, as in the metric `nll`."""
    likelihood = posterior[np.arange(len(target)), target].astype(np.float64)  # (N, R) -> (N,)
    return float(-np.log(np.clip(likelihood, FLOOR, None)).mean())
