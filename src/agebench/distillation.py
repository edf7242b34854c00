"""Distillation: the posterior of a network learns from that of a trained network, its teacher."""

from typing import Any

import torch
from torch import Tensor, nn

from agebench.heads.base import Head


class Teacher:
    """A trained network whose posterior a student learns from. It is frozen and no part of the student.

    The loss is (1 - weight) * loss of the student's head + weight * temperature^2 * KL(teacher || student), the mean
    over the batch of the divergence of both posteriors at the temperature T: each is p^(1/T), normalised. For a softmax
    that is the softmax of outputs / T. Any two heads for the same labels have posteriors, so any can teach any other.

    Args:
        network: Images as the student gets them, before normalisation -> outputs (B, K) of `head`.
        head: The teacher's head.
        weight: In [0, 1].
        temperature: Above 0.
        facts: `teacher` of results.json.

    Source:
        Hinton, Vinyals, Dean (2015), Distilling the Knowledge in a Neural Network, arXiv:1503.02531, with a softmax.
    """

    def __init__(
        self, network: nn.Module, head: Head, *, weight: float, temperature: float, facts: dict[str, Any]
    ) -> None:
        self.network, self.head = network.eval().requires_grad_(False), head
        self.weight, self.temperature, self.facts = weight, temperature, facts

    def log_posterior(self, images: Tensor) -> Tensor | None:
        """Return the logarithm of the teacher's posterior, shape (B, R), or None if its weight is 0."""
        if self.weight == 0:
            return None
        self.network.to(images.device)
        with torch.no_grad():
            outputs = self.network(images)
            with torch.autocast(images.device.type, enabled=False):
                return self.head.log_posterior(outputs)

    def combine(self, loss: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of a batch, shape (), from that of the head and two log-posteriors, shape (B, R)."""
        own, taught = ((each / self.temperature).log_softmax(dim=1) for each in (student, teacher))
        divergence = (taught.exp() * (taught - own)).sum(dim=1).mean()  # (B, R) -> (B,) -> ()
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * divergence
