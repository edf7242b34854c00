"""Format metrics, p-values and counts as the text of a cell."""

import math
from collections.abc import Callable, Sequence

from agebench.comparison.groups import Group
from agebench.comparison.paired_differences import Difference
from agebench.metrics.by_group import Gap
from agebench.metrics.table import find

NONE = "-"
Form = Callable[[float], str]


def form_of(metric: str, *, unit: str, images: int | None, sign: bool = False) -> Form:
    """Return the function that formats values of a metric.

    Args:
        metric: With or without the part.
        unit: The unit of the target, empty for classes.
        images: Number of test images, None if unknown.
        sign: Whether positive values have a `+`.
    """
    digits = find(metric).decimals(unit=unit, images=images or 0)
    return lambda value: f"{value:{'+' if sign else ''}.{digits}f}" if math.isfinite(value) else "n/a"


def result(group: Group, metric: str, form: Form, *, interval: tuple[float, float] | None) -> str:
    """Return the mean of a group as text, with the standard deviation over seeds and the interval if they are known."""
    mean = group.mean(metric)
    if not math.isfinite(mean):
        return "n/a"
    std = group.std(metric)
    spread = "" if std is None else f" ± {form(std)}"
    return f"{form(mean)}{spread}" if interval is None else f"{form(mean)}{spread} {brackets(interval, form)}"


def difference(found: Difference | None, form: Form) -> str:
    """Return a difference with its interval as text."""
    if found is None:
        return NONE
    value = form(found.value)
    return f"{value} {brackets((found.low, found.high), form)}" if math.isfinite(found.low) else value


def gap(found: Gap | None, form: Form, *, values: bool = False) -> str:
    """Return a gap between two groups of test images as text, with its interval, the names of both and their values."""
    if found is None:
        return NONE
    interval = f" {brackets((found.low, found.high), form)}" if math.isfinite(found.low) else ""
    names = [f"{name} {form(found.values[name])}" if values else name for name in (found.worst, found.best)]
    return f"{form(found.value)}{interval} ({', '.join(names)})"


def p_value(p: float, adjusted: float | None, *, least: float) -> str:
    """Return a corrected p-value as text, with `<` if p is the smallest possible value for these resamples."""
    if adjusted is None or not math.isfinite(adjusted):
        return NONE
    if p <= least * (1 + 1e-9):
        return f"< {_up(adjusted)}"
    return f"{adjusted:.2f}" if adjusted >= 0.095 else f"{adjusted:.2g}"


def amount(value: float | None) -> str:
    """Return a mean of counts or seconds as text, such as `1,234` or `2.5`."""
    return NONE if value is None else f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def thousands(value: float | None) -> str:
    """Return a count as text with three digits and a suffix, such as `1.19 M`."""
    if value is None:
        return NONE
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f}"


def brackets(bounds: Sequence[float], form: Form) -> str:
    """Return the bounds of an interval as text."""
    return f"[{', '.join(form(bound) for bound in bounds)}]"


def _up(p: float) -> str:
    """Return an upper bound as text, rounded up to one or two digits."""
    digits = max(0, -math.floor(math.log10(p))) + (1 if p >= 0.001 else 0)
    return f"{math.ceil(p * 10**digits - 1e-3) / 10**digits:g}"
