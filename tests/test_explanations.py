"""The number that is explained for each kind of head, and report/explained.npz."""

import numpy as np
import pytest
import torch
from torch import nn

from agebench.explanations import explain_images, explained_number, write_explanations
from agebench.heads.binary import Binary
from agebench.heads.coral import CORAL
from agebench.heads.softmax import Softmax
from agebench.models.normalise import Normalise
from agebench.models.small_cnn import SmallCNN
from agebench.module import ImageModule
from agebench.report.explained import Explained

AGES = [20.0, 30.0, 40.0]


def module_of(head, model: nn.Module) -> ImageModule:
    return ImageModule(
        model,
        head,
        normalise=Normalise([0.5], [0.25]),
        augment=nn.Identity(),
        optim=torch.optim.SGD,
        scheduler=None,
        unit="",
        channels_last=False,
        seed=0,
        stamp={},
    )


def score(head, outputs: list[list[float]], predicted: list[int]) -> list[float]:
    module = module_of(head, nn.Linear(1, 1))
    return explained_number(module, torch.tensor(predicted))(torch.tensor(outputs)).tolist()


def test_the_output_of_the_predicted_class_above_the_mean_of_all_is_explained() -> None:
    found = score(Softmax(3, [0, 1, 2], ordered=False), [[1.0, 6.0, 2.0], [7.0, 0.0, 2.0]], [1, 2])

    assert found == [6.0 - 3.0, 2.0 - 3.0]


def test_the_logit_of_a_binary_head_has_the_sign_of_the_prediction() -> None:
    found = score(Binary(2, [0, 1], ordered=False), [[1.5], [-2.0]], [1, 0])

    assert found == pytest.approx([1.5, 2.0], abs=1e-4)


def test_the_mean_age_is_explained_for_ordered_labels() -> None:
    logits = np.array([[0.3, -1.0, 2.0]])
    expected = (np.exp(logits) / np.exp(logits).sum() * AGES).sum()

    found = score(Softmax(3, AGES, ordered=True), logits.tolist(), [0])

    assert found == pytest.approx([expected], abs=1e-4)


@pytest.mark.parametrize(
    "head", [Softmax(3, AGES, ordered=True), CORAL(3, AGES, ordered=True)], ids=["softmax", "coral"]
)
def test_the_heat_of_an_age_is_the_hires_cam_of_the_mean_age(head) -> None:
    torch.manual_seed(0)
    model = SmallCNN(16, 1, num_classes=head.num_outputs, widths=(4,)).eval()
    module = module_of(head, model)
    images = torch.randint(0, 255, (2, 1, 16, 16), dtype=torch.uint8)

    heat, method, layer = explain_images(module, images, np.array([0, 1]))

    assert (method, layer) == ("HiResCAM", "activation1")
    normalised = module.normalise(images)
    maps = nn.Sequential(*list(model)[:4])(normalised)  # up to activation1
    maps.retain_grad()
    posterior = head.posterior(nn.Sequential(*list(model)[4:])(maps))
    (posterior * torch.tensor(AGES)).sum().backward()
    expected = (maps.grad * maps).sum(1).detach()  # Draelos and Carin (2020)
    expected = nn.functional.interpolate(expected[:, None], (16, 16), mode="bilinear")[:, 0]
    np.testing.assert_allclose(heat, expected.numpy(), rtol=1e-4, atol=1e-7)


def test_large_images_are_stored_small(tmp_path) -> None:
    module = module_of(Softmax(3, [0, 1, 2], ordered=False), SmallCNN(224, 1, num_classes=3, widths=(2, 2)))
    images = torch.randint(0, 255, (2, 1, 224, 224), dtype=torch.uint8)

    path = write_explanations(tmp_path / "e.npz", module, images, rows=np.array([4, 2]), predicted=np.array([0, 1]))

    read = Explained.load(path)
    assert read.rows.tolist() == [4, 2]
    assert read.images.shape == (2, 1, 112, 112)
    assert read.heat.shape == (2, 112, 112)
    means = images.float().unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    np.testing.assert_allclose(read.images, means, atol=0.51)
