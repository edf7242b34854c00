"""AlexNet and GoogLeNet of torchvision with the arguments of timm. Random weights replace the downloads."""

import pytest
import torch
import torchvision
from timm.models import adapt_input_conv
from torch import nn

from agebench.errors import UserError
from agebench.models import torchvision_nets


@pytest.fixture
def published(monkeypatch):
    """Replace the published weights with random ones, and return those."""
    served = {}

    def serve(enum, *args, **kwargs):
        name = "googlenet" if "GoogLeNet" in type(enum).__name__ else "alexnet"
        options = {"init_weights": True} if name == "googlenet" else {}
        served[name] = torchvision.models.get_model(name, weights=None, num_classes=1000, **options).state_dict()
        return served[name]

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", serve)
    return served


@pytest.mark.parametrize(("name", "size"), [("alexnet", 63), ("googlenet", 32)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_forward_pass_in_training_returns_one_tensor_for_any_number_of_channels(name, size, channels) -> None:
    with torch.device("meta"):
        model = torchvision_nets.create_torchvision(name, in_chans=channels, num_classes=7).train()
        outputs = model(torch.empty(2, channels, size, size))

    assert isinstance(outputs, torch.Tensor)
    assert outputs.shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "first", "last"), [("alexnet", "features.0", "classifier.6"), ("googlenet", "conv1.conv", "fc")]
)
def test_pretrained_weights_are_kept_except_for_the_adapted_first_and_the_new_last_layer(
    name, first, last, published
) -> None:
    model = torchvision_nets.create_torchvision(name, in_chans=1, num_classes=7, pretrained=True)

    weights = model.state_dict()
    expected = adapt_input_conv(1, published[name][f"{first}.weight"])
    torch.testing.assert_close(weights[f"{first}.weight"], expected, rtol=1e-6, atol=1e-8)
    assert weights[f"{last}.weight"].shape[0] == 7
    kept = [key for key in weights if not key.startswith((f"{first}.weight", last))]
    assert len(kept) > 10
    assert all(torch.equal(weights[key], published[name][key]) for key in kept)
    assert model.eval()(torch.rand(2, 1, 64, 64)).isfinite().all()


def test_a_pretrained_network_with_1000_classes_keeps_its_classifier(published) -> None:
    model = torchvision_nets.create_torchvision("googlenet", in_chans=3, num_classes=1000, pretrained=True)

    assert torch.equal(model.fc.weight, published["googlenet"]["fc.weight"])
    assert torch.equal(model.conv1.conv.weight, published["googlenet"]["conv1.conv.weight"])


def test_googlenet_with_its_statistics_equals_torchvision_with_those_of_imagenet(published) -> None:
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 64, 64)
    theirs = torchvision.models.googlenet(weights="IMAGENET1K_V1").eval()
    ours = torchvision_nets.create_torchvision("googlenet", in_chans=3, num_classes=1000, pretrained=True).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if key in ours.state_dict()})
    mean, std = (torch.tensor(ours.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))

    outputs = ours((pixels - mean) / std)

    imagenet = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(outputs, theirs(imagenet(pixels)), rtol=1e-4, atol=1e-5)
    assert theirs.transform_input


def test_the_dropout_option_of_alexnet_is_passed_to_torchvision() -> None:
    with torch.device("meta"):
        model = torchvision_nets.create_torchvision("alexnet", in_chans=3, num_classes=2, dropout=0.1)

    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.1, 0.1]


def test_another_model_name_raises_an_error_that_suggests_timm() -> None:
    with pytest.raises(UserError, match=r"got resnet18: try model=timm model.model_name=resnet18"):
        torchvision_nets.create_torchvision("resnet18", in_chans=3, num_classes=2)
