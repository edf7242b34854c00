"""What a model predicts for the images of a part, with its loss and its metrics."""

from dataclasses import dataclass

from agebench.metrics.answers import Answers, Array


@dataclass(frozen=True)
class Predictions(Answers):
    """Predictions for the images of a part, in the part's order.

    Args:
        rows: Rows of the part, int64, shape (N,); all of them unless a trainer limit cut the test short.
        losses: The head's loss of each image alone, float64, shape (N,).
        weights: Weight of each image in the loss of all, float64, shape (N,).
        metrics: Every metric by name, such as `test/mae`.
    """

    rows: Array
    losses: Array
    weights: Array
    metrics: dict[str, float]
