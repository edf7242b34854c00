"""A head that takes part in agebench as head=my_head."""

from collections.abc import Sequence

from torch import Tensor

from agebench.heads.base import Head


class MyHead(Head):
    """A softmax whose loss is the expected absolute error in the target's unit (years, decades).

    Args:
        num_labels: R, the number of labels, given by agebench.
        values: The value of each label in the target's unit, given by agebench.
        ordered: Whether the labels have an order, given by agebench.
        decode: The statistic of the posterior that is the point estimate; a key of conf/head/my_head.yaml.
    """

    needs_order = True  # False for a head that takes classes without an order, too

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        self.num_outputs = num_labels

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, shape (), of outputs (B, num_outputs) and label indices (B,)."""
        distances = (self.values - self.values[target][:, None]).abs()  # (R,) - (B, 1) -> (B, R)
        return (self.posterior(outputs) * distances).sum(dim=1).mean()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label, shape (B, R)."""
        return outputs.softmax(dim=1)
