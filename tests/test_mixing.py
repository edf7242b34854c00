"""Mixup and CutMix of training batches, and the losses of mixed images."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agebench import heads
from agebench.augment.mixing import Mixing

VALUES = [0.0, 1.0, 2.0, 3.0]


def batch(count: int = 8, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of which image i is i everywhere, and the labels 0, 1, 2, ..."""
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, size, size).clone()
    return images, torch.arange(count)


def test_mixup_adds_up_two_images_with_the_shares_of_their_labels() -> None:
    torch.manual_seed(0)
    images, target = batch()

    mixed = Mixing(mixup=0.5, cutmix=None, probability=1.0)(images, target)

    expected = mixed.share * target + (1 - mixed.share) * mixed.other
    torch.testing.assert_close(mixed.images, expected.float().view(-1, 1, 1, 1).expand_as(images))
    assert sorted(mixed.other.tolist()) == target.tolist()
    assert 0 < mixed.share < 1


def test_cutmix_replaces_a_rectangle_whose_area_is_the_share_of_the_other_label() -> None:
    images, target = batch(size=20)
    mixing = Mixing(mixup=None, cutmix=1.0, probability=1.0)
    for seed in range(30):
        torch.manual_seed(seed)

        mixed = mixing(images, target)

        for i, image in enumerate(mixed.images):
            own, other = image == i, image == mixed.other[i]
            assert (own | other).all()
            if mixed.other[i] != i:
                assert own.float().mean().item() == pytest.approx(mixed.share)
                replaced = other[0].nonzero()
                if len(replaced):
                    height, width = (replaced.max(0).values - replaced.min(0).values + 1).tolist()
                    assert height * width == len(replaced)


def test_the_shares_are_drawn_from_the_beta_distribution() -> None:
    torch.manual_seed(0)
    images, target = batch(2, size=1)
    mixing = Mixing(mixup=0.4, cutmix=None, probability=1.0)

    shares = np.array([mixing(images, target).share for _ in range(4000)])

    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)  # of Beta(a, a)


def test_a_cutmix_rectangle_has_the_other_share_of_the_area_before_it_is_clipped() -> None:
    torch.manual_seed(0)
    images, target = batch(2, size=50)
    mixing = Mixing(mixup=None, cutmix=1.0, probability=1.0)

    replaced = np.array([1 - mixing(images, target).share for _ in range(3000)])

    # A side s = sqrt(u) with a uniform centre has s - s^2 / 4 of its length inside. The share u is uniform, so the mean
    # area is the integral of (sqrt(u) - u / 4)^2.
    assert replaced.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.015)


def test_the_probability_and_the_choice_between_both() -> None:
    torch.manual_seed(0)
    images, target = batch(2, size=8)
    images[1] = 0.5  # so that only mixup gives values between 0 and 0.5
    mixing = Mixing(mixup=1.0, cutmix=1.0, probability=0.6)

    drawn = [mixing(images, target) for _ in range(2000)]

    kept = [mixed for mixed in drawn if mixed is not None]
    added = [bool(((m.images > 0) & (m.images < 0.5)).any()) for m in kept if m.other[0] != 0]
    assert len(kept) / len(drawn) == pytest.approx(0.6, abs=0.04)
    assert np.mean(added) == pytest.approx(0.5, abs=0.06)


def test_a_batch_of_one_image_is_not_mixed() -> None:
    images, target = batch(1)

    assert Mixing(mixup=1.0, cutmix=None, probability=1.0)(images, target) is None


def test_the_loss_of_classes_is_the_cross_entropy_of_the_mixed_distribution() -> None:
    torch.manual_seed(0)
    outputs, target, other = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 1, 0, 2, 3])
    soft = 0.3 * F.one_hot(target, 4) + 0.7 * F.one_hot(other, 4)

    loss = heads.Softmax(4, VALUES, ordered=False).mixed_loss(outputs, target, other, share=0.3)

    torch.testing.assert_close(loss, F.cross_entropy(outputs, soft))


@pytest.mark.parametrize("name", ["ORCNN", "DLDL", "SORD"])
def test_the_gradient_of_the_loss_is_that_of_the_mixed_distribution(name) -> None:
    torch.manual_seed(0)
    head = getattr(heads, name)(4, VALUES, ordered=True)
    outputs = torch.randn(5, head.num_outputs, requires_grad=True)
    target, other = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 1, 0, 2, 3])
    if name == "ORCNN":
        above = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).float()
        expected = (outputs.sigmoid() - (0.3 * above[target] + 0.7 * above[other])) / 5
    else:
        expected = (outputs.softmax(1) - (0.3 * head.soft_labels[target] + 0.7 * head.soft_labels[other])) / 5

    (gradient,) = torch.autograd.grad(head.mixed_loss(outputs, target, other, share=0.3), outputs)

    torch.testing.assert_close(gradient, expected.detach())


def test_regression_learns_the_mixed_value() -> None:
    head = heads.Regression(4, VALUES, ordered=True)
    mean, std = np.mean(VALUES), np.std(VALUES)
    outputs = torch.tensor([[0.5], [-1.0]])
    mixed = np.array([0.3 * 0 + 0.7 * 2, 0.3 * 3 + 0.7 * 1])

    loss = head.mixed_loss(outputs, torch.tensor([0, 3]), torch.tensor([2, 1]), share=0.3)

    assert loss.item() == pytest.approx(np.abs(np.array([0.5, -1.0]) - (mixed - mean) / std).mean(), rel=1e-5)
