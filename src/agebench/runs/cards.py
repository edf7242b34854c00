"""The tags of TensorBoard's cards, whose order TensorBoard derives from their names.

Time Series sorts `/`, `_` and digits before all other characters and opens the first two groups. They must be `train`
and `val`, so everything that is written once at the end of a run has the prefix `x_`. HPARAMS sorts by code point and
shows the first five metrics. They must contain the result. Its group continues `val` with `-`, which comes before `/`
on HPARAMS, but after it in Time Series.
"""

import re
from collections.abc import Mapping

RESULT = "val-and-test"


def card_name(name: str) -> str:
    """Return the tag of a logged scalar.

    It is `train/lr` for Lightning's `lr-Adam`, `x_test/mae` for `test/mae`, `val-and-test/val_best_mae` for
    `val/best_mae`, and otherwise the name.
    """
    if name.startswith("lr-"):
        return re.sub(r"^lr-\w+", "train/lr", name)
    return re.sub("^test/", "x_test/", re.sub("^(train|val)/best_", rf"{RESULT}/\1_best_", name))


def result_card(best: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the tag and the value of the monitored metric on the test images; nothing if the test does not have it.

    Args:
        best: The name of the best value, such as `val/best_mae`.
        metrics: The metrics of the test, such as `test/mae`.
    """
    name = best.rpartition("/best_")[2]
    value = metrics.get(f"test/{name}")
    return {} if value is None else {f"{RESULT}/test_{name}": value}
