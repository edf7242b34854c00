"""Holm's correction of p-values for several comparisons."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values with the correction of Holm (1979), Scand. J. Statist. 6, 65-70. NaN stays NaN."""
    order = [i for i in np.argsort(p_values, kind="stable").tolist() if not np.isnan(p_values[i])]
    adjusted, highest = list(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
