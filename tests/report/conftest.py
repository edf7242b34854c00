"""Fixtures of the report tests: seeded outcomes and features."""

from collections.abc import Callable

import numpy as np
import pytest

from agebench.report.outcome import Outcome


@pytest.fixture
def digits_outcome() -> Outcome:
    rng = np.random.default_rng(1)
    posterior = rng.dirichlet(np.ones(10), size=200)
    names = np.array([f"test/{i:05d}" for i in range(200)])
    values = np.arange(10.0)
    target = rng.integers(0, 9, size=200)  # no image of a 9
    return Outcome(names, target, posterior, posterior @ values, values, tuple("0123456789"), False, "")


@pytest.fixture
def ages_outcome() -> Outcome:
    rng = np.random.default_rng(2)
    values = np.arange(14.0, 63.0)
    posterior = rng.dirichlet(np.ones(49), size=300)
    target = rng.integers(5, 45, size=300)
    names = np.array([f"{14 + t}_Some_One_{i:04d}.jpg" for i, t in enumerate(target)])
    return Outcome(names, target, posterior, posterior @ values, values, tuple(f"{v:g}" for v in values), True, "years")


@pytest.fixture
def draw_features() -> Callable[[int, int], tuple[np.ndarray, np.ndarray]]:
    def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        scales = np.linspace(3, 0.1, 12)
        return (rng.normal(size=(count, 12)) * scales + 4).astype(np.float32), rng.integers(0, 10, size=count)

    return draw
