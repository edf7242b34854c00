"""What the network of a run sees in images: HiResCAM of its predictions, and report/explained.npz."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agebench.models.explain import Score, explain, first_kernels, stage_maps
from agebench.module import ImageModule
from agebench.report.explained import Explained

Array = npt.NDArray[Any]
EPSILON = 1e-6  # of a probability before its logarithm
LARGEST = 112  # px, side of a stored image


def explained_number(module: ImageModule, predicted: Tensor) -> Score:
    """Return a function of the outputs of B images that computes the number to explain.

    It is the mean of the posterior for ordered labels, which is differentiable where the estimate (the median) is not.
    For classes it is the output of the predicted label less the mean output of all labels, because only differences of
    outputs have an effect on the prediction. If the outputs are no logits, it is the logit of the label's probability.

    Args:
        module: The trained module.
        predicted: The predicted label of each image, int64, shape (B,).
    """
    head = module.head

    def score(outputs: Tensor) -> Tensor:
        outputs = outputs.float()
        if not head.ordered and outputs.shape[1] == head.num_labels:
            return outputs.gather(1, predicted[:, None])[:, 0] - outputs.mean(1)  # (B, R) -> (B,)
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
    found = explain(module.model, _normalised(module, images), explained_number(module, labels))
    return found.maps.float().cpu().numpy(), found.method, found.layer


def write_explanations(path: Path, module: ImageModule, images: Tensor, *, rows: Array, predicted: Array) -> Path:
    """Write explained.npz and return its path.

    Args:
        path: The file.
        module: The trained module.
        images: Test images, at least one, uint8, shape (k, C, S, S).
        rows: Rows of the outcome, the result of explained_rows, int64, shape (k,).
        predicted: The predicted label of each image, int64, shape (k,).
    """
    heat, method, layer = explain_images(module, images, predicted)
    _, channels, height, width = images.shape
    kernels = first_kernels(module.model, (channels, height, width))
    stages = stage_maps(module.model, _normalised(module, images[:1])[0])
    pixels = _reduced(images.cpu().float()).round().to(torch.uint8).numpy()
    return Explained(
        rows=rows,
        images=pixels,
        heat=_reduced(torch.from_numpy(heat)[:, None])[:, 0].numpy().astype(np.float16),
        method=method,
        layer=layer,
        kernels=np.zeros(0) if kernels is None else kernels.numpy(),
        map_image=pixels[0],
        stages={name: _reduced(maps[None])[0].numpy().astype(np.float16) for name, maps in stages.items()},
    ).save(path)


def _normalised(module: ImageModule, images: Tensor) -> Tensor:
    """Return normalised images, as the network gets them."""
    found: Tensor = module.normalise(images.to(module.device))
    return found.contiguous(memory_format=module.memory_format)


def _reduced(images: Tensor) -> Tensor:
    """Return images, float, shape (n, C, S, S), with a side of at most LARGEST."""
    if images.shape[-1] <= LARGEST:
        return images
    return torch.nn.functional.interpolate(images, (LARGEST, LARGEST), mode="area")
