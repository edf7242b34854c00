"""What networks, heads and augmentations must return.

`agebench.testing` checks more, on random inputs. A training checks its first batch, once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.user_code import defined_in

ROUNDING = 1e-3  # what a training allows, in any precision


class ContractError(AssertionError):
    """A class or a config breaks the contract of its kind. The message is the contract and what came instead."""


def require(holds: bool, contract: str, got: object) -> None:
    """Raise ContractError unless the contract holds.

    Args:
        holds: Whether it holds.
        contract: What must be true, as a sentence.
        got: What came instead.
    """
    if not holds:
        raise ContractError(f"{contract}; got {got}")


@contextmanager
def named(part: Any, name: str = "") -> Iterator[None]:
    """Context manager: raise UserError instead of ContractError, with the class of a part and its file.

    Args:
        part: The network, head or augmentation, or the class or function that builds it.
        name: Its name; empty for that of its class.
    """
    try:
        yield
    except ContractError as error:
        raise UserError(f"{name or type(part).__name__}{defined_in(part)}: {error}") from error


def require_outputs(outputs: Any, shape: tuple[int, int], *, exact: bool = False) -> None:
    """Check the outputs of a network.

    Args:
        outputs: What it returned.
        shape: (B, K).
        exact: Whether they must be float32. A training takes any floating-point numbers.
    """
    contract = f"a backbone must map images ({shape[0]}, C, S, S) to outputs (B, num_classes) = {shape}, float32"
    require(isinstance(outputs, Tensor), contract, f"a {type(outputs).__name__}")
    fits = tuple(outputs.shape) == shape and _fits(outputs, exact)
    require(fits, contract, f"{outputs.dtype} of shape {tuple(outputs.shape)}")


def require_posterior(posterior: Any, shape: tuple[int, int], *, exact: bool = False) -> None:
    """Check that each row of a head's posterior is a distribution.

    Args:
        posterior: What it returned.
        shape: (B, R).
        exact: Whether it must be float32, with sums within 1e-5. A training allows for rounding.
    """
    contract = f"a head must return posteriors of shape (B, R) = {shape}, float32, at least 0, with rows that sum to 1"
    require(isinstance(posterior, Tensor), contract, f"a {type(posterior).__name__}")
    posterior = posterior.detach()
    require(tuple(posterior.shape) == shape, contract, f"shape {tuple(posterior.shape)}")
    require(_fits(posterior, exact), contract, posterior.dtype)
    lowest = 0 if exact else -ROUNDING
    require(bool((posterior >= lowest).all()), contract, f"a value of {float(posterior.min()):g}")
    sums = posterior.sum(dim=1)
    worst = float(sums[(sums - 1).abs().argmax()])
    within = 1e-5 if exact else ROUNDING
    require(bool(((sums - 1).abs() <= within).all()), contract, f"a row that sums to {worst:g}")


def require_images(changed: Any, shape: tuple[int, ...], *, exact: bool = False) -> None:
    """Check the images that an augmentation returned.

    Args:
        changed: What it returned.
        shape: (B, C, S, S) of its input.
        exact: Whether they must be float32. A training allows for rounding.
    """
    contract = f"an augmentation must return images of the same shape {shape}, float32, from 0 to 1"
    require(isinstance(changed, Tensor), contract, f"a {type(changed).__name__}")
    require(
        tuple(changed.shape) == shape and _fits(changed, exact),
        contract,
        f"{changed.dtype} of shape {tuple(changed.shape)}",
    )
    values = changed if exact else changed[changed.isfinite()]  # the key `on_nan` decides what happens to other images
    if values.numel() == 0:
        return
    low, high, slack = float(values.min()), float(values.max()), 0 if exact else ROUNDING
    inside = bool(values.isfinite().all()) and low >= -slack and high <= 1 + slack
    require(inside, contract, f"values from {low:g} to {high:g}")


def require_loss(loss: Any, count: int, *, exact: bool = False) -> None:
    """Check the shape of the loss of a batch.

    Args:
        loss: What the head returned.
        count: The number of images.
        exact: Whether it must be float32. A training takes any floating-point number.
    """
    contract = f"the loss of a batch of {count} must be one float32 of shape ()"
    require(isinstance(loss, Tensor), contract, f"a {type(loss).__name__}")
    require(loss.shape == () and _fits(loss, exact), contract, f"{loss.dtype} of shape {tuple(loss.shape)}")


def require_gradient(model: nn.Module, outputs: Tensor) -> None:
    """Check that the outputs of a network in training depend on its weights, unless all of them are frozen."""
    trained = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in model.parameters())
    contract = "the outputs of a backbone in training must have a gradient"
    require(outputs.requires_grad or not trained, contract, "none: remove detach() or no_grad() from its forward")


def _fits(found: Tensor, exact: bool) -> bool:
    return found.dtype == torch.float32 if exact else found.is_floating_point()
