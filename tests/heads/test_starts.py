"""The outputs where a network with each head starts: the distribution of the train labels."""

import numpy as np
import pytest
import torch
from torch import nn

from agebench import heads
from agebench.models.classifier import start_classifier
from agebench.models.mlp import MLP

POSTERIOR = ("Softmax", "ORCNN", "CORAL", "CORN", "DLDL", "SORD")  # can be any distribution
MEAN = ("DLDLv2", "MeanVariance", "Unimodal")  # decode the mean
LABELS = {
    "years": [float(age) for age in range(70)],
    "decades": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "uneven": [14.0, 15.0, 18.5, 40.0],
}


def skewed(values: list[float]) -> np.ndarray:
    """Return the label indices of 801 train images; the last label does not occur."""
    drawn = np.random.default_rng(0).gamma(2, 0.2, 801) * len(values)
    return np.clip(drawn.astype(int), 0, len(values) - 2)


def started(name: str, values: list[float], labels: np.ndarray) -> tuple[heads.Head, torch.Tensor]:
    head = getattr(heads, name)(len(values), values, ordered=True)
    counts = torch.from_numpy(np.bincount(labels, minlength=len(values)))
    head.set_label_counts(counts)
    return head.eval(), head.start(counts)[None].detach()


@pytest.mark.parametrize("values", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", [*POSTERIOR, *MEAN, "Regression"])
def test_every_head_starts_at_the_median_of_the_train_labels(name, values) -> None:
    labels = skewed(values)

    head, outputs = started(name, values, labels)

    assert outputs.shape == (1, head.num_outputs)
    assert outputs.dtype == torch.float32
    assert head.point(outputs).item() == pytest.approx(np.median(np.array(values)[labels]), abs=1e-4)


@pytest.mark.parametrize("values", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", POSTERIOR)
def test_a_head_starts_at_the_shares_of_the_train_labels(name, values) -> None:
    labels = skewed(values)
    shares = np.bincount(labels, minlength=len(values)) / len(labels)

    head, outputs = started(name, values, labels)

    # One image more is spread evenly over the labels, which changes no share by more than 1 / 802.
    np.testing.assert_allclose(head.posterior(outputs).detach()[0], shares, atol=1 / 802)


@pytest.mark.parametrize("label", [0, 1])
def test_the_binary_head_starts_at_the_share_of_the_second_label(label) -> None:
    head = heads.Binary(2, [0.0, 1.0], ordered=True)

    outputs = head.start(torch.tensor([30, 69]))[None]

    # 30.5 and 69.5 of 100 images.
    assert head.posterior(outputs)[0, label].item() == pytest.approx([0.305, 0.695][label], abs=1e-6)


@pytest.mark.parametrize("make", [heads.Softmax, heads.Binary])
def test_classes_without_an_order_have_no_start(make) -> None:
    head = make(2, [0.0, 1.0], ordered=False)

    assert head.start(torch.tensor([1, 9])) is None


@pytest.mark.parametrize("weight", ["balanced", [1.0, 2.0, 3.0]])
def test_class_weights_have_no_start(weight) -> None:
    head = heads.Softmax(3, [1.0, 2.0, 3.0], ordered=True, class_weight=weight)

    head.set_label_counts(torch.tensor([1, 2, 3]))

    assert head.start(torch.tensor([1, 2, 3])) is None


def test_a_network_starts_with_these_outputs_for_every_image() -> None:
    model = MLP(8, 1, num_classes=3, hidden=[4])
    start = torch.tensor([0.5, -1.0, 2.0])

    start_classifier(model, start)

    torch.testing.assert_close(model(torch.rand(5, 1, 8, 8)), start.expand(5, 3))


def test_a_classifier_without_a_bias_keeps_its_weights() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    before = model[1].weight.detach().clone()

    start_classifier(model, torch.zeros(3))

    assert torch.equal(model[1].weight, before)
