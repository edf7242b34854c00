"""The table of metrics: one row per metric with its properties.

A new metric is a row of METRICS and a function in agebench.metrics.formulas. Its bootstrap interval, ranking, column
and monitor follow from the row.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agebench.errors import UserError, did_you_mean
from agebench.metrics import decisions, formulas
from agebench.metrics.age_limit import AgeLimit
from agebench.metrics.formulas import OfImages, OfSums, PerImage

Better = Literal["lower", "higher", "nearest to zero"]
Mode = Literal["min", "max"]

TOLERANCES = range(11)  # years k of the cumulative score CS@k
UNITS = {"age": "years", "decade": "decades", "bins": "bins"}  # unit of the errors by target; classes have none
TRAINED = ("loss", "accuracy")  # metrics that are also logged for the train part
ABSOLUTE = "abs_"  # prefix of the absolute value of a metric for which values nearest to zero are better
MANY_IMAGES = 2_000  # number of test images from which a fourth decimal is shown


@dataclass(frozen=True)
class Metric:
    """A row of the table. At most one of the three functions is given. If there is none, the head computes the metric.

    Args:
        name: As in results.json, without `test/`.
        better: Which values are better.
        per_image: Returns the value of each image. The metric is their mean.
        of_sums: Computes the metric from sums over a set of images.
        of_images: Computes the metric from the images of a set.
        balanced: Whether per_image is averaged within each cell (decade of the true age, or label) and then over the
            cells with images. Only for ordered labels.
        weighted: The value and the weight of each image, if the metric is also a weighted mean over images that gives
            each label or cell the same weight. Resamples keep the weights.
        targets: The targets that have the metric. `steps` is every ordered target except ages in years.
        calibrated: Whether only calibrated predictions have the metric.
        min_labels: Minimum number of labels.
        in_unit: Whether the metric is in the target's unit.
        from_point: Whether the metric needs only the point estimates and not the posterior. Only for ordered labels.
        from_label: Whether the metric needs only the most likely label, which is the point estimate of classes.
        headline: Whether the metric is logged at every epoch and shown after a test.
        live: Whether the metric is shown during training.
        column: Whether `compare` shows the metric as a further column. `classes`: only if labels have no order.
        digits: Decimals for a large test set. A small test set has at most three, and an error in years has two.
    """

    name: str
    better: Better
    per_image: PerImage | None = None
    of_sums: OfSums | None = None
    of_images: OfImages | None = None
    balanced: bool = False
    weighted: tuple[PerImage, PerImage] | None = None
    targets: Literal["all", "ordered", "years", "steps", "classes"] = "all"
    calibrated: bool = False
    min_labels: int = 1
    in_unit: bool = False
    from_point: bool = False
    from_label: bool = False
    headline: bool = False
    live: bool = False
    column: Literal["always", "classes", "never"] = "always"
    digits: int = 4

    @property
    def computed(self) -> bool:
        """Whether the metric is computed from the predictions, and not by the head."""
        return any((self.per_image, self.of_sums, self.of_images))

    @property
    def known(self) -> bool:
        """Whether the metric is in the table. Runs may have other metrics."""
        return self.name in BY_NAME

    @property
    def by_head(self) -> bool:
        """Whether the head computes the metric, so that it is not comparable between heads or their settings."""
        return self.known and not self.computed

    @property
    def by_group(self) -> bool:
        """Whether the metric is given by group of images: the headline, and coverage and size of calibrated sets."""
        return self.headline or (self.calibrated and self.column != "never")

    @property
    def can_pair(self) -> bool:
        """Whether paired differences are possible: a mean over images, computed from what predictions.csv contains."""
        mean = self.per_image is not None and not self.balanced and self.better != "nearest to zero"
        return mean and not self.calibrated

    @property
    def mode(self) -> Mode:
        """`min` or `max`, of the absolute value if values nearest to zero are better."""
        return "max" if self.better == "higher" else "min"

    def exists(self, *, num_labels: int, ordered: bool, unit: str) -> bool:
        """Return whether a target has the metric."""
        applies = {"all": True, "ordered": ordered, "years": ordered and unit == "years"}
        applies |= {"steps": ordered and unit != "years", "classes": not ordered}
        return applies[self.targets] and num_labels >= self.min_labels

    def oriented(self, value: float) -> float:
        """Return the value for ranks and plots: the absolute value if values nearest to zero are better."""
        return abs(value) if self.better == "nearest to zero" else value

    def cost(self, value: float) -> float:
        """Return a number that is lower for better values."""
        return -value if self.better == "higher" else self.oriented(value)

    def decimals(self, *, unit: str, images: int) -> int:
        """Return the number of decimals to show.

        Args:
            unit: The unit of the target.
            images: Number of test images.
        """
        if self.in_unit and unit == "years":
            return 2
        return self.digits if images >= MANY_IMAGES else min(self.digits, 3)


METRICS: tuple[Metric, ...] = (
    Metric("loss", "lower", headline=True, live=True, column="never", digits=3),
    Metric("accuracy", "higher", formulas.correct, from_label=True, headline=True, live=True),
    Metric("top5", "higher", formulas.in_top5, min_labels=6),
    Metric(
        "balanced_accuracy",
        "higher",
        of_sums=formulas.mean_recall,
        weighted=(formulas.correct, formulas.weights_of_labels),
        from_label=True,
    ),
    Metric(
        "macro_f1",
        "higher",
        of_sums=formulas.mean_f1,
        weighted=(formulas.correct, formulas.weights_of_f1),
        from_label=True,
        headline=True,
        column="classes",
    ),
    Metric("nll", "lower", formulas.negative_log_likelihood, headline=True, digits=3),
    Metric("ece", "lower", of_sums=formulas.calibration_error),
    Metric(
        "mae",
        "lower",
        formulas.absolute_error,
        targets="ordered",
        in_unit=True,
        from_point=True,
        headline=True,
        live=True,
        digits=3,
    ),
    Metric(
        "rmse", "lower", of_sums=formulas.root_mean_square, targets="ordered", from_point=True, in_unit=True, digits=3
    ),
    Metric(
        "median_error",
        "lower",
        of_images=formulas.median_error,
        targets="ordered",
        from_point=True,
        in_unit=True,
        digits=3,
    ),
    Metric(
        "bias",
        "nearest to zero",
        formulas.error,
        targets="ordered",
        in_unit=True,
        from_point=True,
        headline=True,
        digits=3,
    ),
    *(
        Metric(f"cs{years}", "higher", formulas.within(years), targets="years", from_point=True, headline=years == 5)
        for years in TOLERANCES
    ),
    Metric("within_1", "higher", formulas.within(1), targets="steps", from_point=True, headline=True),
    Metric("qwk", "higher", of_sums=formulas.quadratic_kappa, targets="ordered", headline=True),
    Metric("qwk_point", "higher", of_sums=formulas.quadratic_kappa_of_point, targets="ordered", from_point=True),
    Metric(
        "balanced_mae",
        "lower",
        formulas.absolute_error,
        balanced=True,
        weighted=(formulas.absolute_error, formulas.weights_of_cells),
        targets="ordered",
        from_point=True,
        in_unit=True,
        digits=3,
    ),
    Metric("nll_calibrated", "lower", formulas.calibrated_nll, calibrated=True, column="never", digits=3),
    Metric("ece_calibrated", "lower", of_sums=formulas.calibrated_calibration_error, calibrated=True, column="never"),
    Metric("coverage", "higher", formulas.covered(calibrated=True), calibrated=True),
    Metric(
        "range_width",
        "lower",
        formulas.range_width(calibrated=True),
        calibrated=True,
        targets="ordered",
        in_unit=True,
        digits=3,
    ),
    Metric("set_size", "lower", formulas.set_size(calibrated=True), calibrated=True, targets="classes", digits=3),
    Metric("coverage_uncalibrated", "higher", formulas.covered(calibrated=False), calibrated=True, column="never"),
    Metric(
        "range_width_uncalibrated",
        "lower",
        formulas.range_width(calibrated=False),
        calibrated=True,
        targets="ordered",
        in_unit=True,
        column="never",
        digits=3,
    ),
    Metric(
        "set_size_uncalibrated",
        "lower",
        formulas.set_size(calibrated=False),
        calibrated=True,
        targets="classes",
        column="never",
        digits=3,
    ),
)
BY_NAME = {metric.name: metric for metric in METRICS}

# Metrics of decisions at an age limit. A run has them only if it has a limit, see `decision_rows`.
DECISIONS = {
    metric.name: metric
    for metric in (
        Metric(decisions.FALSE_ADULT, "lower", of_sums=decisions.false_adult_rate(0), from_point=True, headline=True),
        Metric(decisions.FALSE_MINOR, "lower", of_sums=decisions.false_minor_rate(0), from_point=True, headline=True),
        Metric(decisions.AUC, "higher", of_images=decisions.area_under_curve),
        Metric(decisions.RECALL, "higher", of_sums=decisions.recall, from_point=True),
        Metric(decisions.PRECISION, "higher", from_point=True),  # of a prior
    )
}
NUMBERED = re.compile(r"(\w+?)_(?:at_)?[0-9.e+]+")  # false_adult_rate_at_21, minor_precision_0.1


def best_name(monitor: str) -> str:
    """Return the name of the best value of a monitored metric: `val/best_mae` for `val/mae`."""
    part, _, metric = monitor.rpartition("/")
    return f"{part}/best_{metric}"


def find(name: str) -> Metric:
    """Return the row of a metric, such as `mae` or `test/mae`. For an unknown metric higher values are better.

    Args:
        name: With or without the part. `val/abs_bias` returns the row of `bias`.
    """
    short = name.rpartition("/")[2]
    known = BY_NAME.get(short.removeprefix(ABSOLUTE)) or BY_NAME.get(short) or DECISIONS.get(short)
    if known is None and (match := NUMBERED.fullmatch(short)) and match[1] in DECISIONS:
        known = replace(DECISIONS[match[1]], name=short, headline=False)
    return known or Metric(short, "higher")


def is_decision(name: str) -> bool:
    """Return whether a metric, with or without the part, depends on an age limit."""
    match = NUMBERED.fullmatch(short := name.rpartition("/")[2])
    return short in DECISIONS or (match is not None and match[1] in DECISIONS)


def decision_rows(limit: AgeLimit, *, below: bool, above: bool) -> list[Metric]:
    """Return the rows of the metrics that decisions at an age limit have.

    Args:
        limit: The age limit.
        below: Whether there are images below the limit. Without them some metrics are undefined.
        above: Whether there are images at or above the limit.
    """
    rows = []
    for name, formula, defined in (
        (decisions.FALSE_ADULT, decisions.false_adult_rate, below),
        (decisions.FALSE_MINOR, decisions.false_minor_rate, above),
    ):
        at_ages = [
            replace(find(decisions.at_age(name, age)), of_sums=formula(column))
            for column, age in enumerate(limit.challenge_ages)
        ]
        rows += [DECISIONS[name], *at_ages] if defined else []
    if below:
        rows.append(DECISIONS[decisions.RECALL])
    if below and above:
        rows.append(DECISIONS[decisions.AUC])
        rows += [replace(find(decisions.at_prior(prior)), of_sums=decisions.precision(prior)) for prior in limit.priors]
    return rows


def metrics_of(*, num_labels: int, ordered: bool, unit: str) -> list[Metric]:
    """Return the rows of the metrics that a target has, in the order of the table."""
    return [metric for metric in METRICS if metric.exists(num_labels=num_labels, ordered=ordered, unit=unit)]


def headline(*, ordered: bool, unit: str) -> list[str]:
    """Return the names of the metrics that are logged at every epoch and shown after a test, the loss first."""
    return [metric.name for metric in metrics_of(num_labels=2, ordered=ordered, unit=unit) if metric.headline]


def main_metric(unit: str) -> str:
    """Return the default metric for ranks and for the best epoch: MAE for ages in years, else accuracy."""
    return "mae" if unit == "years" else "accuracy"


def live_keys(parts: Sequence[str] = ("train", "val")) -> list[str]:
    """Return the keys, such as `val/mae`, of the metrics that are shown during training."""
    live = [metric.name for metric in METRICS if metric.live]
    return [f"{part}/{name}" for part in parts for name in live if part != "train" or name in TRAINED]


def monitor_keys(*, ordered: bool, unit: str) -> list[str]:
    """Return the allowed values of `monitor`, such as `val/mae`."""
    names = headline(ordered=ordered, unit=unit)
    absolute = [f"{ABSOLUTE}{name}" for name in names if find(name).better == "nearest to zero"]
    return [*(f"train/{name}" for name in TRAINED), *(f"val/{name}" for name in (*names, *absolute))]


def monitor_mode(key: str) -> tuple[str, Mode]:
    """Return the logged key and the mode, `min` or `max`, for a monitor such as `val/mae`.

    If values nearest to zero are better, the key is that of the absolute value: `val/abs_bias` for `val/bias`.

    Raises:
        UserError: If the metric is not in the table.
    """
    part, _, name = key.rpartition("/")
    if name.removeprefix(ABSOLUTE) not in BY_NAME:
        raise UserError(
            f"monitor={key} is not a metric{did_you_mean(name, BY_NAME)}: choose one of {', '.join(BY_NAME)}"
        )
    metric = find(name)
    if metric.better == "nearest to zero":
        name = f"{ABSOLUTE}{metric.name}"
    return f"{part}/{name}", metric.mode


def absolute_values(scores: dict[str, float]) -> dict[str, float]:
    """Return the absolute values that are logged as monitors in addition to the metrics: `abs_bias` for `bias`."""
    return {f"{ABSOLUTE}{n}": abs(x) for n, x in scores.items() if find(n).better == "nearest to zero"}


def axis_name(key: str, unit: str) -> str:
    """Return the label of an axis, such as `mae on test (years)`. The axis of a bias shows its absolute value."""
    part, _, _ = key.rpartition("/")
    metric = find(key)
    absolute = "absolute " if metric.better == "nearest to zero" else ""
    return f"{absolute}{metric.name} on {part}{f' ({unit})' if unit and metric.in_unit else ''}"
