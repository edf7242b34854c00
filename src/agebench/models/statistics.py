"""The statistics of batch norm, computed again for changed weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def updated_norms(model: nn.Module) -> list[Any]:
    """Return the batch norm layers whose running statistics training updates. Frozen ones are in evaluation mode."""
    norms: list[Any] = [layer for layer in model.modules() if isinstance(layer, BATCH_NORMS)]
    return [norm for norm in norms if norm.training and norm.running_mean is not None]


@contextmanager
def fresh_statistics(norms: list[Any]) -> Iterator[None]:
    """Context manager: running statistics become the mean of those of the batches that pass inside.

    Momentum and the counters of batches are restored, so that training continues as before.
    """
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
