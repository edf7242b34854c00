"""The tags of TensorBoard's cards, whose order TensorBoard derives from their names.

Time Series sorts `/`, `_` and digits before all other characters and opens the first two groups. They must be `train`
and `val`, so everything that is no curve over the epochs has the prefix `x_`. HPARAMS sorts by code point and shows the
first five metrics. They must contain the result. Its group continues `val` with `-`, which comes before `/` on HPARAMS,
but after it in Time Series. For the same reason `train` has few cards.
"""

import re
from collections.abc import Mapping

RESULT = "val-and-test"
# The tag of a logged scalar, by a pattern of its name.
CARDS = {
    r"lr-\w+": "train/lr",  # Lightning's `lr-Adam`; `lr-Adam/1` for the second group of parameters
    r"train/loss_step": "x_steps/loss",
    r"train/grad_norm": "x_steps/grad_norm",
    r"(train|val)/best_": rf"{RESULT}/\1_best_",
    r"test/": "x_test/",
}


def card_name(name: str) -> str:
    """Return the tag of a logged scalar, such as `x_test/mae` for `test/mae`; most scalars keep their name."""
    for pattern, tag in CARDS.items():
        if re.match(pattern, name):
            return re.sub(pattern, tag, name, count=1)
    return name


def result_card(best: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the tag and the value of the monitored metric on the test images; nothing if the test does not have it.

    Args:
        best: The name of the best value, such as `val/best_mae`.
        metrics: The metrics of the test, such as `test/mae`.
    """
    name = best.rpartition("/best_")[2]
    value = metrics.get(f"test/{name}")
    return {} if value is None else {f"{RESULT}/test_{name}": value}
