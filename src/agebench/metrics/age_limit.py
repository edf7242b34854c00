"""An age limit: the settings of decisions such as "may this person pass at 18?", and where the limit lies in labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agebench.errors import UserError

# Keys of a config, with their defaults. None of them changes the training.
DEFAULTS: Mapping[str, Any] = {
    "age_limit": None,
    "challenge_ages": (18, 21, 25, 30),
    "acceptable": 0.01,
    "priors": (0.1, 0.2, 0.3),
}


@dataclass(frozen=True)
class AgeLimit:
    """An age limit, the challenge ages, and the age in years at which each of R labels starts.

    Args:
        limit: The limit, in years.
        challenge_ages: Estimated ages, in years, from which a person passes unchecked; ascending, the limit first.
        acceptable: The largest acceptable share of people below the limit who pass.
        priors: Assumed shares of people below the limit, for the precision.
        starts: The youngest age of each label, in years, ascending, length R; -inf for the first bin.
        unit: The unit of the target: `years`, `decades` or `bins`.
    """

    limit: float
    challenge_ages: tuple[float, ...]
    acceptable: float
    priors: tuple[float, ...]
    starts: tuple[float, ...]
    unit: str

    @property
    def ages(self) -> tuple[float, ...]:
        """The ages of the curves of both error rates: the challenge ages and the start of every label but the first."""
        return tuple(sorted({*self.challenge_ages, *self.starts[1:]}))


def check_age_limit(limit: float | None, *, target: str, bins: Sequence[float] | None) -> None:
    """Raise UserError unless the labels of a target can be divided at an age limit; None is always possible.

    Args:
        limit: The limit, in years.
        target: `class`, `age`, `decade` or `bins`.
        bins: The lower edges of the bins, in years.
    """
    if limit is None or target == "age":
        return
    if target == "class":
        raise UserError(
            f"age_limit={limit:g} needs ages, and data.target is class: set data.target=age, or age_limit=null"
        )
    edges = list(bins or ())
    if (target == "decade" and limit % 10) or (target == "bins" and limit not in edges):
        named = "the decades 10, 20, 30, ..." if target == "decade" else f"data.bins=[{','.join(map(str, edges))}]"
        raise UserError(f"age_limit={limit:g} must be an edge of {named}: choose one of them, or data.target=age")


def label_starts(values: Sequence[float], *, unit: str, bins: Sequence[float] | None) -> tuple[float, ...]:
    """Return the youngest age of each label, in years.

    Args:
        values: The value of each label in the unit, length R.
        unit: `years`, `decades` or `bins`.
        bins: The lower edges of all bins but the first, in years.
    """
    if unit == "bins":
        return (float("-inf"), *(float(edge) for edge in bins or ()))
    return tuple(float(value) * (10 if unit == "decades" else 1) for value in values)


def make_age_limit(
    settings: Mapping[str, Any], *, values: Sequence[float], unit: str, bins: Sequence[float] | None
) -> AgeLimit | None:
    """Return the age limit of a config, or None if `age_limit` is null.

    Challenge ages below the limit are left out, because nobody below the limit may pass. So are those that are not an
    edge of decades or bins, because a label may contain ages on both sides.

    Args:
        settings: The keys of DEFAULTS. A key that is absent or null has its default.
        values: The value of each label in the unit, length R.
        unit: `years`, `decades`, `bins`, or empty for classes.
        bins: The lower edges of the bins, in years.

    Raises:
        UserError: If the labels are classes, the limit is not an edge of them, or all labels are on one side of it.
    """
    found = {key: default if settings.get(key) is None else settings[key] for key, default in DEFAULTS.items()}
    limit = found["age_limit"]
    if limit is None:
        return None
    target = {"years": "age", "decades": "decade", "bins": "bins"}.get(unit, "class")
    check_age_limit(limit, target=target, bins=bins)
    starts = label_starts(values, unit=unit, bins=bins)
    if not starts[0] < limit <= starts[-1]:
        raise UserError(
            f"age_limit={limit:g} needs labels on both sides, and these start at {starts[0]:g} and end at "
            f"{starts[-1]:g} years: choose a limit between them"
        )
    possible = [float(age) for age in found["challenge_ages"] if age > limit and (unit == "years" or age in starts)]
    return AgeLimit(
        limit=float(limit),
        challenge_ages=(float(limit), *sorted(set(possible))),
        acceptable=float(found["acceptable"]),
        priors=tuple(float(prior) for prior in found["priors"]),
        starts=starts,
        unit=unit,
    )


def left_out(settings: Mapping[str, Any], limit: AgeLimit) -> list[float]:
    """Return the challenge ages of a config that `make_age_limit` left out."""
    given = DEFAULTS["challenge_ages"] if settings.get("challenge_ages") is None else settings["challenge_ages"]
    return sorted({float(age) for age in given} - set(limit.challenge_ages))
