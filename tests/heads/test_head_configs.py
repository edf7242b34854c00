"""Tests that run for every file in conf/head, also for new ones."""

import inspect
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from agebench.errors import UserError
from agebench.heads.base import Head

FOLDER = Path(__file__).parents[2] / "conf" / "head"
HEADS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LABELS = {
    "ages": [float(age) for age in range(14, 63)],
    "decades": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "bins": [0.0, 1.0, 2.0, 3.0, 4.0],
    "uneven": [14.0, 15.0, 18.5, 40.0],
    "two": [0.0, 1.0],
}
CASES = [(name, labels) for name in HEADS for labels in LABELS if name != "binary" or labels == "two"]
every_head = pytest.mark.parametrize("name", HEADS)
every_case = pytest.mark.parametrize(("name", "labels"), CASES, ids=["-".join(case) for case in CASES])


def make(name: str, values, *, ordered: bool = True, **changes) -> Head:
    """Instantiate a head as in a run."""
    config = OmegaConf.load(FOLDER / f"{name}.yaml")
    return instantiate(config, len(values), list(values), ordered=ordered, _convert_="all", **changes)


def target_of(values, count: int) -> torch.Tensor:
    """Return random labels. With more than two labels, every third one does not occur."""
    occurring = [label for label in range(len(values)) if len(values) == 2 or label % 3 != 1]
    return torch.from_numpy(np.random.default_rng(1).choice(occurring, size=count))


def outputs_of(head: Head, count: int, *, seed: int = 0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).normal(size=(count, head.num_outputs)) * 2
    return torch.from_numpy(drawn).float()


@every_head
def test_the_yaml_starts_with_a_comment_and_lists_every_option(name) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    labels, values, *options = inspect.signature(get_object(config["_target_"])).parameters.values()

    assert text.startswith("# ")
    assert 10 < len(text.splitlines()[0]) <= 92
    assert (labels.name, values.name) == ("num_labels", "values")
    assert config["decode"] == "auto"
    assert set(config) - {"_target_"} == {option.name for option in options} - {"ordered"}
    for option in options:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY
        assert option.name == "ordered" or config[option.name] == option.default


@every_case
def test_loss_posterior_and_point_have_the_right_shapes_types_and_sums(name, labels) -> None:
    values = LABELS[labels]
    head = make(name, values).eval()
    outputs, target = outputs_of(head, 16), target_of(values, 16)

    loss, posterior, point = head.loss(outputs, target), head.posterior(outputs), head.point(outputs)

    assert isinstance(head, Head)
    assert (loss.shape, posterior.shape, point.shape) == ((), (16, len(values)), (16,))
    assert (loss.dtype, posterior.dtype, point.dtype) == (torch.float32,) * 3
    assert (posterior >= 0).all()
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(16), rtol=0, atol=1e-5)


@every_case
def test_a_batch_may_have_one_image(name, labels) -> None:
    head = make(name, LABELS[labels])
    outputs = outputs_of(head, 1)

    assert torch.isfinite(head.loss(outputs, torch.tensor([0])))
    assert head.point(outputs).shape == (1,)


@every_case
def test_the_loss_of_a_batch_is_the_weighted_mean_of_the_losses_of_its_images(name, labels) -> None:
    values = LABELS[labels]
    head = make(name, values).eval()
    outputs, target = outputs_of(head, 24), target_of(values, 24)
    alone = [head.loss(outputs[i : i + 1], target[i : i + 1]).item() for i in range(24)]

    weights = head.sample_weights(target)

    assert weights.shape == (24,)
    assert head.loss(outputs, target).item() == pytest.approx(np.average(alone, weights=weights.numpy()), rel=1e-4)


@every_case
def test_losses_and_gradients_of_extreme_outputs_are_finite(name, labels) -> None:
    values = LABELS[labels]
    target = target_of(values, 30)

    for size in (0.0, 1e2, 1e4):
        head = make(name, values)
        signs = np.sign(np.random.default_rng(2).normal(size=(30, head.num_outputs)))
        signs[:4] = [[1.0], [-1.0], [0.0], [-1.0]] * np.ones((4, head.num_outputs))
        signs[3, -1] = 1
        outputs = torch.from_numpy(size * signs).float().requires_grad_()
        loss = head.loss(outputs, target)
        loss.backward()

        assert torch.isfinite(loss), size
        for parameter in (outputs, *head.parameters()):
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all(), size
        posterior, point = head.posterior(outputs.detach()), head.point(outputs.detach())
        assert (posterior >= 0).all()
        torch.testing.assert_close(posterior.sum(dim=1), torch.ones(30), rtol=0, atol=1e-5)
        assert ((point >= values[0] - 1e-4) & (point <= values[-1] + 1e-4)).all(), size


@every_case
def test_the_point_is_the_chosen_statistic_and_lies_within_the_values(name, labels) -> None:
    values = np.array(LABELS[labels])

    for decode in ("auto", "mean", "median", "mode"):
        head = make(name, values.tolist(), decode=decode).eval()
        outputs = outputs_of(head, 64)
        posterior = head.posterior(outputs).detach().double().numpy()
        cumulated = posterior.cumsum(axis=1)
        point = head.point(outputs).detach().double().numpy()

        assert (point >= values[0] - 1e-4).all(), decode
        assert (point <= values[-1] + 1e-4).all(), decode
        if decode == "mean":
            np.testing.assert_allclose(point, posterior @ values, atol=1e-3)
        if decode == "mode":
            np.testing.assert_array_equal(point, np.float32(values[posterior.argmax(axis=1)]))
        if decode == "median":
            chosen = np.abs(values[:, None] - point).argmin(axis=0)
            np.testing.assert_allclose(values[chosen], point, rtol=1e-6)
            rows = np.arange(64)
            assert (cumulated[rows, chosen] >= 0.5 - 1e-5).all()
            assert (cumulated[rows, chosen] - posterior[rows, chosen] <= 0.5 + 1e-5).all()


@every_case
def test_a_gradient_step_of_a_linear_model_lowers_the_loss(name, labels) -> None:
    values = LABELS[labels]
    head = make(name, values).double()
    target = target_of(values, 32)
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.normal(size=(32, 8)))
    weight = torch.from_numpy(rng.normal(size=(8, head.num_outputs)) * 0.1).requires_grad_()
    parameters = [weight, *head.parameters()]

    before = head.loss(images @ weight, target)
    gradients = torch.autograd.grad(before, parameters)
    length = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-4 * gradient / length
    after = head.loss(images @ weight, target)

    assert length > 0
    assert after < before


@every_head
def test_a_linear_model_learns_a_linear_target(name) -> None:
    values = LABELS["two" if name == "binary" else "decades"]
    head = make(name, values)
    target = torch.arange(len(values)).repeat(8)
    image = target.float() - target.float().mean()
    images = torch.stack([image, image.square(), torch.ones_like(image)], dim=1)  # (N, 3)
    weight = torch.zeros(3, head.num_outputs, requires_grad=True)
    optimizer = torch.optim.Adam([weight, *head.parameters()], lr=0.05)
    truth = torch.tensor(values)[target]
    before = (head.point(images @ weight) - truth).abs().mean()

    for _ in range(300):
        optimizer.zero_grad()
        head.loss(images @ weight, target).backward()
        optimizer.step()

    after = (head.eval().point(images @ weight.detach()) - truth).abs().mean()
    assert after < before / 2


@every_case
def test_the_state_of_a_head_can_be_saved_and_loaded(name, labels) -> None:
    head = make(name, LABELS[labels])
    outputs = outputs_of(head, 16)
    with torch.no_grad():
        for weight in head.state_dict().values():
            weight.mul_(1.25)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)

    other = make(name, LABELS[labels])
    other.load_state_dict(torch.load(file, weights_only=True))

    assert {name for name, _ in head.named_parameters()} <= set(head.state_dict())
    assert torch.equal(other.eval().posterior(outputs), head.eval().posterior(outputs))


@every_case
def test_the_gradient_of_the_loss_is_correct(name, labels) -> None:
    values = LABELS[labels] if labels != "ages" else LABELS["ages"][:8]
    head = make(name, values).double()
    target = target_of(values, 4)
    outputs = outputs_of(head, 4, seed=5).double().requires_grad_()

    assert torch.autograd.gradcheck(lambda x: head.loss(x, target), outputs)


@every_head
def test_labels_without_an_order_raise_an_error_if_the_class_needs_an_order(name) -> None:
    if get_object(OmegaConf.load(FOLDER / f"{name}.yaml")._target_).needs_order:
        with pytest.raises(Exception, match="needs labels with an order") as caught:
            make(name, LABELS["two"], ordered=False)
        assert UserError in (type(caught.value), type(caught.value.__cause__))
    else:
        assert make(name, LABELS["two"], ordered=False).decode == "mode"


@every_head
def test_a_single_label_raises_an_error_except_for_softmax(name) -> None:
    if name == "softmax":
        assert make(name, [20.0]).point(torch.zeros(1, 1)).tolist() == [20.0]
    else:
        with pytest.raises(Exception, match=r"only one|this target has 1") as caught:
            make(name, [20.0])
        assert UserError in (type(caught.value), type(caught.value.__cause__))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@every_case
def test_a_training_step_under_autocast_is_close_to_one_in_full_precision(name, labels, half) -> None:
    values = LABELS[labels]
    head = make(name, values)
    torch.manual_seed(0)
    images, target = torch.rand(8, 1, 4, 4), target_of(values, 8)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, head.num_outputs))

    def step(enabled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", dtype=half, enabled=enabled):
            outputs = network(images)
            assert outputs.dtype == (half if enabled else torch.float32)
            with torch.autocast("cpu", enabled=False):  # as in the LightningModule
                loss = head.loss(outputs.float(), target)
        loss.backward()
        return loss.detach(), network[1].weight.grad.clone()

    (loss, gradient_half), (expected, exact) = step(True), step(False)

    assert torch.isfinite(gradient_half).all()
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=2e-2)
    # Rounding can change the side of a hinge, so only the directions of the gradients are compared.
    assert torch.nn.functional.cosine_similarity(gradient_half.flatten(), exact.flatten(), dim=0) > 0.98
