"""The contract of backbones."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from agebench.contract import require, require_outputs
from agebench.testing.contract import Target, build, images_of, working

CLASSES = 7
SIGNATURE = "in_chans, num_classes and the keys of its YAML"
Make = Callable[..., nn.Module]


def check_backbone(target: Target, *, size: int = 64, shapes_only: bool = False, **options: Any) -> None:
    """Check that a backbone keeps the contract: `in_chans` and `num_classes` give a network of (B, C, S, S) to (B, K).

    Args:
        target: The class or function, or its dotted name: `mynets.TinyNet`.
        size: S, the side of the images in px.
        shapes_only: Whether to check only the shapes, on the meta device: no weights are allocated. For large networks.
        options: The other keys of the YAML.

    Raises:
        ContractError: If the backbone breaks the contract.

    Examples:
        >>> check_backbone("agebench.models.SmallCNN", size=32)
    """

    def make(channels: int, outputs: int = CLASSES) -> nn.Module:
        named = {"in_chans": channels, "num_classes": outputs}
        model = build("backbone", target, signature=SIGNATURE, options=options, **named)
        require(isinstance(model, nn.Module), "a backbone must be a torch.nn.Module", type(model).__name__)
        network: nn.Module = model
        return network

    with torch.random.fork_rng():
        torch.manual_seed(0)
        for channels, outputs in ((1, CLASSES), (3, CLASSES), (3, 1)):
            with torch.device("meta" if shapes_only else "cpu"):
                model = make(channels, outputs)
                images = torch.rand(2, channels, size, size)
                with _working(images):
                    found = model.train()(images)
            require_outputs(found, (2, outputs), exact=True)
            if not shapes_only and outputs > 1:
                _check_training_step(model, found)
                _check_evaluation(model.eval(), images)
        if not shapes_only:
            _check_state(make, torch.rand(2, 3, size, size))


def _working(images: Tensor) -> AbstractContextManager[None]:
    return working(f"a backbone must work for {images_of(images.shape)}")


def _check_training_step(model: nn.Module, outputs: Tensor) -> None:
    require(bool(outputs.isfinite().all()), "the outputs of a backbone must be finite", "NaN or infinity")
    with working("a backbone must have gradients"):
        torch.autograd.backward(outputs.logsumexp(dim=1).sum())
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    without = [name for name, parameter in trained.items() if parameter.grad is None]
    contract = "at least nine of ten parameters of a backbone must have a gradient"  # stochastic depth skips a few
    require(len(without) <= 0.1 * len(trained), contract, f"none for {', '.join(without[:3])}")
    broken = [n for n, p in trained.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
    require(not broken, "the gradients of a backbone must be finite", f"NaN or infinity for {', '.join(broken[:3])}")


@torch.no_grad()
def _check_evaluation(model: nn.Module, images: Tensor) -> None:
    with _working(images):
        both = model(images)
    singles = []
    for image in images.split(1):
        with _working(image):
            singles.append(model(image))
        require_outputs(singles[-1], (1, both.shape[1]), exact=True)
    contract = "in evaluation, the outputs for an image must not depend on chance"
    require(torch.equal(model(images), both), contract, "other outputs for the same images")
    alone = torch.cat(singles)
    difference = float((alone - both).abs().max())
    contract = "in evaluation, the outputs for an image must not depend on the other images of the batch"
    require(torch.allclose(alone, both, rtol=1e-3, atol=1e-4), contract, f"a difference of {difference:g}")


@torch.no_grad()
def _check_state(make: Make, images: Tensor) -> None:
    model, file = make(3), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = make(3)
    with working("a backbone must load its saved state_dict"):
        other.load_state_dict(torch.load(file, weights_only=True))
    difference = float((other.eval()(images) - model.eval()(images)).abs().max())
    contract = "a backbone must have the same outputs after its state_dict is saved and loaded"
    require(difference <= 1e-5, contract, f"a difference of {difference:g}")
