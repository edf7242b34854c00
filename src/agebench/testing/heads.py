"""The contract of heads."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError, gradcheck

from agebench.build.nodes import find_target
from agebench.contract import require, require_loss, require_posterior
from agebench.errors import UserError
from agebench.heads.base import DECODES, Head
from agebench.testing.contract import Target, build, working

# Ordered labels: their values in the target's unit.
LABELS: Mapping[str, Sequence[float]] = {
    "ages": [float(age) for age in range(14, 63)],
    "decades": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "bins": [0.0, 1.0, 2.0, 3.0, 4.0],
    "uneven": [14.0, 15.0, 18.5, 40.0],
    "two": [0.0, 1.0],
}
SIGNATURE = "(num_labels, values, *, ordered, decode='auto') and the keys of its YAML"
Make = Callable[..., Head]


def check_head(target: Target, *, loss_is_mean: bool = True, **options: Any) -> list[str]:
    """Check that a head keeps the contract of agebench.heads.base.Head, on CPU, in about a second.

    Label sets that the constructor refuses with a UserError are left out.

    Args:
        target: The class, or its dotted name: `myheads.EarthMover`.
        loss_is_mean: Whether the loss of a batch is the mean of the losses of its images, weighted by `sample_weights`.
            The test loss of other heads has no interval.
        options: The other keys of the YAML; every `decode` is checked anyway.

    Returns:
        The names of the label sets that the head supports, keys of LABELS.

    Raises:
        ContractError: If the head breaks the contract.

    Examples:
        >>> check_head("agebench.heads.CORAL")
        ['ages', 'decades', 'bins', 'uneven', 'two']
    """
    options.pop("decode", None)

    def make(values: Sequence[float], *, ordered: bool = True, **changes: Any) -> Head:
        built = build(
            "head", target, len(values), list(values), signature=SIGNATURE, options=options | changes, ordered=ordered
        )
        require(isinstance(built, Head), "a head must be a subclass of agebench.heads.base.Head", type(built).__name__)
        head: Head = built
        return head

    supported, refused = [], ""
    target = find_target("head", target) if isinstance(target, str) else target
    with torch.random.fork_rng():
        for name, values in LABELS.items():
            try:
                make(values)
            except UserError as error:
                refused = str(error)
                continue
            supported.append(name)
            checks = CHECKS if loss_is_mean else CHECKS[:-1]
            try:
                for check, inputs in checks:
                    with working(f"a head must work for {inputs}"):
                        check(make, values)
            except Exception as error:
                error.add_note(f"checked with the ordered labels {list(values)}")
                raise
        require(
            bool(supported),
            "a head must support some ordered labels",
            f"a UserError for each of {list(LABELS)}: {refused}",
        )
        with working("a head must work for 300 steps of Adam"):
            _check_learns(make, LABELS["decades" if "decades" in supported else supported[0]])
        _check_order(make, LABELS[supported[-1]])
    return supported


def _target_of(values: Sequence[float], count: int) -> Tensor:
    """Return random labels. With more than two labels, every third one does not occur."""
    occurring = [label for label in range(len(values)) if len(values) == 2 or label % 3 != 1]
    return torch.from_numpy(np.random.default_rng(1).choice(occurring, size=count))


def _outputs_of(head: Head, count: int, *, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, head.num_outputs)) * 2).float()


def _check_shapes(make: Make, values: Sequence[float]) -> None:
    head = make(values).eval()
    for count in (16, 1):
        outputs, target = _outputs_of(head, count), _target_of(values, count)
        with working(f"a head must work for a batch of {count}"):
            loss, point = head.loss(outputs, target), head.point(outputs)
        require_loss(loss, count, exact=True)
        require(bool(torch.isfinite(loss)), f"the loss of a batch of {count} must be finite", loss.item())
        require_posterior(head.posterior(outputs), (count, len(values)), exact=True)
        require(
            point.shape == (count,) and point.dtype == torch.float32,
            f"a head must return point estimates of shape (B,) = ({count},), float32",
            f"{point.dtype} of shape {tuple(point.shape)}",
        )


def _check_mean(make: Make, values: Sequence[float]) -> None:
    head = make(values).eval()
    outputs, target = _outputs_of(head, 24), _target_of(values, 24)
    alone = [head.loss(outputs[i : i + 1], target[i : i + 1]).item() for i in range(24)]
    weights = head.sample_weights(target)
    require(weights.shape == (24,), "sample_weights must have the shape (B,) = (24,)", tuple(weights.shape))
    expected, loss = float(np.average(alone, weights=weights.numpy())), head.loss(outputs, target).item()
    require(
        bool(np.isclose(loss, expected, rtol=1e-4, atol=0)),
        f"the loss of a batch must be the mean of the losses of its images ({expected:g}) weighted by sample_weights, "
        "or be checked with loss_is_mean=False: then the test loss has no interval",
        f"{loss:g}",
    )


def _check_extremes(make: Make, values: Sequence[float]) -> None:
    target = _target_of(values, 30)
    for size in (0.0, 1e2, 1e4):
        head = make(values)
        signs = np.sign(np.random.default_rng(2).normal(size=(30, head.num_outputs)))
        signs[:4] = [[1.0], [-1.0], [0.0], [-1.0]] * np.ones((4, head.num_outputs))
        signs[3, -1] = 1
        outputs = torch.from_numpy(size * signs).float().requires_grad_()
        loss = head.loss(outputs, target)
        require(bool(torch.isfinite(loss)), f"the loss of outputs of ±{size:g} must be finite", loss.item())
        torch.autograd.backward(loss)
        for name, parameter in (("outputs", outputs), *head.named_parameters()):
            contract = f"the gradient of the loss by {name} must be finite for outputs of ±{size:g}"
            require(parameter.grad is not None, contract, "no gradient")
            require(bool(torch.isfinite(parameter.grad).all()), contract, "NaN or infinity")  # type: ignore[arg-type]  # not None
        require_posterior(head.posterior(outputs.detach()), (30, len(values)), exact=True)
        _require_within(head.point(outputs.detach()), values)


def _require_within(point: Tensor, values: Sequence[float]) -> None:
    inside = (point >= values[0] - 1e-4) & (point <= values[-1] + 1e-4)
    contract = f"point estimates must lie between the first and the last value, {values[0]:g} and {values[-1]:g}"
    require(bool(inside.all()), contract, point[~inside][:3].tolist())


def _check_point(make: Make, values: Sequence[float]) -> None:
    levels = np.array(values)
    for decode in DECODES:
        head = make(values, decode=decode).eval()
        outputs = _outputs_of(head, 64)
        posterior = head.posterior(outputs).detach().double().numpy()
        point = head.point(outputs).detach()
        _require_within(point, values)
        found = point.double().numpy()
        contract = f"with decode={decode}, the point estimate must be the {decode} of the posterior"
        if decode == "mean":
            require(bool(np.allclose(found, posterior @ levels, atol=1e-3)), contract, found[:3])
        if decode == "mode":
            require(bool((found == np.float32(levels[posterior.argmax(axis=1)])).all()), contract, found[:3])
        if decode == "median":
            chosen, rows = np.abs(levels[:, None] - found).argmin(axis=0), np.arange(64)
            up_to = posterior.cumsum(axis=1)[rows, chosen]
            before = up_to - posterior[rows, chosen]
            is_value = np.isclose(levels[chosen], found, rtol=1e-6)
            is_median = is_value & (up_to >= 0.5 - 1e-5) & (before <= 0.5 + 1e-5)
            require(bool(is_median.all()), contract, found[~is_median][:3])


def _check_step(make: Make, values: Sequence[float]) -> None:
    head = make(values).double()
    target = _target_of(values, 32)
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.normal(size=(32, 8)))
    weight = torch.from_numpy(rng.normal(size=(8, head.num_outputs)) * 0.1).requires_grad_()
    parameters = [weight, *head.parameters()]

    before = head.loss(images @ weight, target)
    gradients = torch.autograd.grad(before, parameters)
    length = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    require(float(length) > 0, "the loss must have a gradient", "a gradient of zero")
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-4 * gradient / length
    after = head.loss(images @ weight, target)
    change = (after - before).item()
    require(change < 0, "a small step against the gradient of a linear model must lower the loss", f"{change:+g}")


def _check_gradient(make: Make, values: Sequence[float]) -> None:
    few = values[:8]
    head, target = make(few).double(), _target_of(few, 4)
    outputs = _outputs_of(head, 4, seed=5).double().requires_grad_()
    try:
        gradcheck(lambda x: head.loss(x, target), outputs)
    except GradcheckError as error:
        require(False, "the gradient of the loss must be its derivative", str(error).strip().splitlines()[0])


def _check_state(make: Make, values: Sequence[float]) -> None:
    head = make(values)
    outputs, file = _outputs_of(head, 16), io.BytesIO()
    with torch.no_grad():
        for weight in head.state_dict().values():
            weight.mul_(1.25)
    torch.save(head.state_dict(), file)
    file.seek(0)

    other = make(values)
    other.load_state_dict(torch.load(file, weights_only=True))
    contract = "a head must predict the same after its state_dict is saved and loaded"
    lost = {name for name, _ in head.named_parameters()} - set(head.state_dict())
    require(not lost, contract, f"no {', '.join(sorted(lost))} in the state_dict")
    same = torch.equal(other.eval().posterior(outputs), head.eval().posterior(outputs))
    require(same, contract, "another posterior: keep what changes it in a parameter or a persistent buffer")


def _check_half(make: Make, values: Sequence[float]) -> None:
    head = make(values)
    torch.manual_seed(0)
    images, target = torch.rand(8, 1, 4, 4), _target_of(values, 8)
    layer = nn.Linear(16, head.num_outputs)

    def step(half: torch.dtype | None) -> tuple[Tensor, Tensor]:
        layer.zero_grad()
        with torch.autocast("cpu", dtype=half or torch.bfloat16, enabled=half is not None):
            outputs = layer(images.flatten(1))
        loss = head.loss(outputs.float(), target)  # float32 outside of autocast, as in the LightningModule
        torch.autograd.backward(loss)
        assert layer.weight.grad is not None
        return loss.detach(), layer.weight.grad.clone().flatten()

    expected, exact = step(None)
    for half in (torch.bfloat16, torch.float16):
        loss, gradient = step(half)
        contract = f"a training step in {half} must be close to one in float32"
        require(bool(torch.isfinite(gradient).all()), contract, "a gradient of NaN or infinity")
        require(
            torch.allclose(loss, expected, rtol=2e-2, atol=2e-2),
            contract,
            f"{loss.item():g} for the loss {expected.item():g}",
        )
        # Rounding can change the side of a hinge, so only the directions of the gradients are compared.
        cosine = float(nn.functional.cosine_similarity(gradient, exact, dim=0))
        require(cosine > 0.98, contract, f"a gradient with the cosine {cosine:.3f}")


def _check_learns(make: Make, values: Sequence[float]) -> None:
    head = make(values)
    target = torch.arange(len(values)).repeat(8)
    image = target.float() - target.float().mean()
    images = torch.stack([image, image.square(), torch.ones_like(image)], dim=1)  # (N, 3)
    weight = torch.zeros(3, head.num_outputs, requires_grad=True)
    optimizer = torch.optim.Adam([weight, *head.parameters()], lr=0.05)
    truth = torch.tensor(list(values))[target]
    before = (head.point(images @ weight) - truth).abs().mean().item()
    for _ in range(300):
        optimizer.zero_grad()
        torch.autograd.backward(head.loss(images @ weight, target))
        optimizer.step()
    after = (head.eval().point(images @ weight) - truth).abs().mean().item()
    contract = "a linear model must halve its mean absolute error on a linear target in 300 steps of Adam"
    require(after < before / 2, contract, f"{before:.3g} before and {after:.3g} after")


def _check_order(make: Make, values: Sequence[float]) -> None:
    """Check labels without an order: a head that needs one refuses them, any other predicts the most likely label."""
    needs_order = type(make(values)).needs_order
    try:
        head = make(values, ordered=False)
    except UserError as error:
        require(needs_order, "a head with needs_order=False must take labels without an order", f"the error: {error}")
        return
    require(not needs_order, "a head with needs_order=True must refuse labels without an order", "no UserError")
    require(head.decode == "mode", "without an order, decode=auto must be the mode", head.decode)


# Checks, and the inputs that they need to work for.
CHECKS: tuple[tuple[Callable[[Make, Sequence[float]], None], str], ...] = (
    (_check_shapes, "batches of 16 and of 1"),
    (_check_extremes, "outputs of 0, ±100 and ±10,000"),
    (_check_point, f"decode={', '.join(DECODES)}"),
    (_check_step, "float64 outputs"),
    (_check_gradient, "float64 outputs"),
    (_check_state, "a state_dict that is saved and loaded"),
    (_check_half, "outputs of a network in half precision"),
    (_check_mean, "batches of 24 and of 1"),
)
