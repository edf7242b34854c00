"""What the network of a run sees in some test images: report/explained.npz."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agebench.data.datamodule import ImageDataModule
from agebench.heads.base import Head
from agebench.metrics.predictions import Array
from agebench.models.explain import Score, explain, first_kernels, stage_maps
from agebench.module import ImageModule
from agebench.report.explained import Explained
from agebench.report.outcome import Outcome
from agebench.report.selection import explained_rows

EPSILON = 1e-6  # of a probability before its logarithm


def explained_number(head: Head, predicted: Tensor) -> Score:
    """Return a function of the outputs of B images that computes the number to explain.

    It is the mean of the posterior for ordered labels, which is differentiable where the estimate (the median) is not.
    For classes it is the output of the predicted label, or the logit of its probability if the outputs are no logits.

    Args:
        head: The head.
        predicted: The predicted label of each image, int64, shape (B,).
    """

    def score(outputs: Tensor) -> Tensor:
        outputs = outputs.float()
        if not head.ordered and outputs.shape[1] == head.num_labels:
            return outputs.gather(1, predicted[:, None])[:, 0]  # (B, R) -> (B,)
        posterior = head.posterior(outputs)
        if head.ordered:
            return (posterior * head.values).sum(1)  # (B, R) -> (B,)
        return posterior.gather(1, predicted[:, None])[:, 0].logit(EPSILON)

    return score


def explain_images(module: ImageModule, images: Tensor, predicted: Array) -> tuple[Array, str, str]:
    """Return the heat of images, float32, shape (k, S, S), the method and the layer, see agebench.models.explain.

    Args:
        module: The trained module.
        images: uint8, shape (k, C, S, S).
        predicted: The predicted label of each image, int64, shape (k,).
    """
    labels = torch.from_numpy(np.asarray(predicted, dtype=np.int64)).to(module.device)
    found = explain(module.model, _normalised(module, images), explained_number(module.head, labels))
    return found.maps.float().cpu().numpy(), found.method, found.layer


def write_explanations(
    path: Path, module: ImageModule, data: ImageDataModule, *, outcome: Outcome, rows: Array
) -> Path | None:
    """Write explained.npz and return its path; None without test images.

    Args:
        path: The file.
        module: The trained module.
        data: The data.
        outcome: Predictions of the test images.
        rows: The row of the test part of each row of the outcome, int64, shape (N,).
    """
    chosen = explained_rows(outcome)
    if not len(chosen):
        return None
    images = data.part("test")[torch.from_numpy(rows[chosen])].images
    heat, method, layer = explain_images(module, images, outcome.predicted[chosen])
    kernels = first_kernels(module.model, data.image_shape)
    stages = stage_maps(module.model, _normalised(module, images[:1])[0])
    pixels = images.cpu().numpy()
    return Explained(
        rows=chosen,
        images=pixels,
        heat=heat.astype(np.float16),
        method=method,
        layer=layer,
        kernels=np.zeros(0) if kernels is None else kernels.numpy(),
        map_image=pixels[0],
        stages={name: maps.numpy().astype(np.float16) for name, maps in stages.items()},
    ).save(path)


def _normalised(module: ImageModule, images: Tensor) -> Tensor:
    """Return normalised images, as the network gets them."""
    found: Tensor = module.normalise(images.to(module.device))
    return found.contiguous(memory_format=module.memory_format)
