"""Load weights from a local file; readable errors for failed downloads."""

import time
from functools import partial

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from hydra.utils import instantiate
from timm.models import adapt_input_conv
from torch import nn

from agebench.errors import UserError
from agebench.models import torchvision_nets
from agebench.models.deep_convnet import DeepConvNet
from agebench.models.keras_cnn import KerasCNN
from agebench.models.weights import adapt_channels, create_pretrained, load_checkpoint

RESNET = "test_resnet"


def published_resnet() -> nn.Module:
    torch.manual_seed(7)
    return timm.create_model(RESNET, num_classes=10)


def test_a_state_dict_of_the_same_network_is_loaded_completely(tmp_path) -> None:
    source = published_resnet()
    torch.save(source.state_dict(), tmp_path / "same.pth")
    model = timm.create_model(RESNET, num_classes=10)

    report = load_checkpoint(model, tmp_path / "same.pth")

    total = len(source.state_dict())
    assert report == f"loaded {total} of {total} tensors from {tmp_path / 'same.pth'}"
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_and_the_classifier_are_adapted_and_reported(tmp_path, channels) -> None:
    source = published_resnet()
    safetensors.torch.save_file(source.state_dict(), tmp_path / "resnet.safetensors")
    torch.manual_seed(1)
    model = timm.create_model(RESNET, in_chans=channels, num_classes=3)
    classifier = model.get_classifier().weight.detach().clone()

    report = load_checkpoint(model, str(tmp_path / "resnet.safetensors"))

    total = len(source.state_dict())
    assert report.startswith(f"loaded {total - 2} of {total} tensors from {tmp_path / 'resnet.safetensors'}; ")
    assert "classifier (fc.weight, fc.bias) new" in report
    assert f"first convolution (conv1.0.weight) adapted from 3 to {channels} channels" in report
    expected = adapt_input_conv(channels, source.state_dict()["conv1.0.weight"])
    torch.testing.assert_close(model.state_dict()["conv1.0.weight"], expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(model.get_classifier().weight, classifier)
    same = [key for key in source.state_dict() if key not in ("conv1.0.weight", "fc.weight", "fc.bias")]
    assert all(torch.equal(model.state_dict()[key], source.state_dict()[key]) for key in same)


def test_a_convolution_adapted_from_1_to_3_channels_has_the_same_outputs_for_a_grey_image() -> None:
    torch.manual_seed(0)
    weight = torch.rand(5, 1, 3, 3)
    grey = torch.rand(2, 1, 9, 9)

    outputs = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), adapt_channels(weight, 3))

    torch.testing.assert_close(outputs, nn.functional.conv2d(grey, weight))


def test_only_the_network_of_a_lightning_checkpoint_is_loaded(tmp_path) -> None:
    source = KerasCNN(8, 1, num_classes=4)
    state = {f"model.{key}": value for key, value in source.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": {**state, "head.thresholds": torch.zeros(3)}}, tmp_path / "best.ckpt")
    model = KerasCNN(8, 1, num_classes=4)

    report = load_checkpoint(model, tmp_path / "best.ckpt")

    assert report.startswith("loaded 8 of 8 tensors")
    assert all(torch.equal(tensor, source.state_dict()[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model._orig_mod."])
def test_key_prefixes_of_wrappers_are_removed(tmp_path, wrapper) -> None:
    source = KerasCNN(8, 1, num_classes=4)
    torch.save({"model": {f"{wrapper}{k}": v for k, v in source.state_dict().items()}}, tmp_path / "wrapped.pt")

    report = load_checkpoint(KerasCNN(8, 1, num_classes=4), tmp_path / "wrapped.pt")

    assert report.startswith("loaded 8 of 8 tensors")


def test_a_file_without_a_classifier_keeps_the_initial_classifier(tmp_path) -> None:
    state = published_resnet().state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "backbone.pth")

    report = load_checkpoint(timm.create_model(RESNET, num_classes=10), tmp_path / "backbone.pth")

    assert report.endswith("classifier (fc.weight, fc.bias) new")


def test_position_embeddings_are_resampled_to_the_image_size(tmp_path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")  # for 160 px
    model = timm.create_model("test_vit", img_size=48, in_chans=1, num_classes=3)

    report = load_checkpoint(model, tmp_path / "vit.pth")

    assert "classifier (head.weight, head.bias) new; first convolution (patch_embed.proj.weight) adapted" in report
    assert model.eval()(torch.rand(2, 1, 48, 48)).isfinite().all()


def test_a_googlenet_file_is_loaded_without_its_auxiliary_classifiers(tmp_path) -> None:
    with_auxiliaries = torchvision_nets.create_torchvision("googlenet", in_chans=3, num_classes=5, aux_logits=True)
    torch.save(with_auxiliaries.state_dict(), tmp_path / "googlenet.pth")
    model = torchvision_nets.create_torchvision("googlenet", in_chans=3, num_classes=5)

    report = load_checkpoint(model, tmp_path / "googlenet.pth")

    total = len(model.state_dict())
    assert report == f"loaded {total} of {total} tensors from {tmp_path / 'googlenet.pth'}"
    assert any(key.startswith("aux1.") for key in with_auxiliaries.state_dict())


def test_a_file_without_num_batches_tracked_is_loaded(tmp_path) -> None:
    state = {k: v for k, v in published_resnet().state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")

    report = load_checkpoint(timm.create_model(RESNET, num_classes=10), tmp_path / "old.pth")

    assert f"loaded {len(state)} of " in report


def test_a_file_of_another_architecture_raises_an_error_with_the_first_keys(tmp_path) -> None:
    torch.save(KerasCNN(8, 1, num_classes=4).state_dict(), tmp_path / "keras.pth")
    model = DeepConvNet(8, 1, num_classes=4)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    with pytest.raises(UserError) as caught:
        load_checkpoint(model, tmp_path / "keras.pth")

    message = str(caught.value)
    assert "does not match the network DeepConvNet" in message
    assert "missing keys conv3.weight, conv3.bias, conv4.weight and " in message
    assert "unexpected keys dense1.weight, dense1.bias" in message
    assert "other shapes conv1.weight (64, 1, 3, 3) for (16, 1, 3, 3)" in message
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_hidden_layer_of_another_shape_raises_an_error(tmp_path) -> None:
    torch.save(KerasCNN(28, 1, num_classes=10).state_dict(), tmp_path / "px28.pth")

    with pytest.raises(UserError, match=r"other shapes dense1.weight \(128, 4608\) for \(128, 128\).*image_size"):
        load_checkpoint(KerasCNN(8, 1, num_classes=10), tmp_path / "px28.pth")


def test_a_file_with_unexpected_layers_raises_an_error(tmp_path) -> None:
    state = published_resnet().state_dict()
    torch.save({**state, "layer9.weight": torch.zeros(2)}, tmp_path / "deeper.pth")

    with pytest.raises(UserError, match=r"unexpected keys layer9.weight\): set model.checkpoint_path"):
        load_checkpoint(timm.create_model(RESNET, num_classes=10), tmp_path / "deeper.pth")


@pytest.mark.parametrize("num_classes", [10, 3])
def test_a_classifier_with_another_number_of_inputs_raises_an_error(tmp_path, num_classes) -> None:
    state = published_resnet().state_dict()
    width = state["fc.weight"].shape[1]
    state["fc.weight"] = torch.zeros(10, width + 1)
    torch.save(state, tmp_path / "wider.pth")
    model = timm.create_model(RESNET, num_classes=num_classes)

    with pytest.raises(UserError, match=rf"other shapes fc.weight \(10, {width + 1}\) for \({num_classes}, {width}\)"):
        load_checkpoint(model, tmp_path / "wider.pth")


def test_only_the_first_convolution_may_have_another_number_of_channels(tmp_path) -> None:
    state = published_resnet().state_dict()
    key = "layer1.0.conv1.weight"
    state[key] = state[key][:, :2]
    torch.save(state, tmp_path / "thin.pth")

    with pytest.raises(UserError, match=r"does not match.*layer1.0.conv1.weight"):
        load_checkpoint(timm.create_model(RESNET, in_chans=1, num_classes=10), tmp_path / "thin.pth")


def test_a_file_of_another_timm_network_raises_an_error(tmp_path) -> None:
    torch.save(published_resnet().state_dict(), tmp_path / "resnet.pth")

    for name in ("test_vit", "test_convnext", "test_efficientnet"):
        with pytest.raises(UserError, match="does not match the network"):
            load_checkpoint(timm.create_model(name), tmp_path / "resnet.pth")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the payload ran",))


@pytest.mark.parametrize("content", [{"a": Payload()}, nn.Linear(2, 2)], ids=["code", "module"])
def test_pickled_code_raises_an_error_and_is_not_run(tmp_path, content, capsys) -> None:
    torch.save(content, tmp_path / "pickled.pth")

    with pytest.raises(UserError, match="Python objects other than tensors"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "pickled.pth")

    assert "payload" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
@pytest.mark.parametrize("content", [b"<html>404</html>", b"", b"hello world, this is text", bytes(100)])
def test_a_file_that_is_not_a_checkpoint_raises_an_error(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UserError, match="is not a checkpoint that PyTorch can read"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / name)


def test_a_truncated_checkpoint_raises_an_error(tmp_path) -> None:
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "complete.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "complete.pth").read_bytes()[:2000])

    with pytest.raises(UserError, match="truncated"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "half.pth")


@pytest.mark.parametrize("content", [{"epoch": 3, "lr": 0.1}, [1, 2], {}], ids=["numbers", "list", "empty"])
def test_a_file_without_weights_raises_an_error(tmp_path, content) -> None:
    torch.save(content, tmp_path / "other.pth")

    with pytest.raises(UserError, match=r"contains no state dict, only (epoch, lr|list|nothing)"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "other.pth")


def test_a_path_that_is_not_a_file_raises_an_error(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "none.pth")
    with pytest.raises(UserError, match="is a folder"):
        load_checkpoint(nn.Linear(2, 2), tmp_path)


@pytest.mark.data
def test_the_published_imagenet_weights_of_mobilenetv2_are_loaded_completely_or_adapted(test_data) -> None:
    path = test_data / "weights" / "mobilenetv2_100_imagenet.pth"
    published = torch.load(path, weights_only=True)
    complete = timm.create_model("mobilenetv2_100")
    adapted = timm.create_model("mobilenetv2_100", in_chans=1, num_classes=6)

    reports = [load_checkpoint(model, path) for model in (complete, adapted)]

    assert reports[0] == f"loaded 314 of 314 tensors from {path}"
    assert reports[1].startswith(f"loaded 312 of 314 tensors from {path}; classifier (classifier.weight, ")
    assert "adapted from 3 to 1 channels" in reports[1]
    assert torch.equal(complete.conv_head.weight, published["conv_head.weight"])
    torch.testing.assert_close(adapted.conv_stem.weight, published["conv_stem.weight"].sum(1, keepdim=True))
    assert adapted.eval()(torch.rand(1, 1, 64, 64)).isfinite().all()


@pytest.fixture
def no_hub(monkeypatch, tmp_path) -> None:
    """Make the hub refuse every connection, with an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("through_hydra", [False, True])
def test_without_a_connection_the_error_comes_at_once_and_has_three_solutions(no_hub, through_hydra) -> None:
    node = {"_target_": "timm.create_model", "model_name": "test_vit.r160_in1k", "pretrained": True}
    create = partial(instantiate, node)
    if not through_hydra:
        create = partial(timm.create_model, "test_vit.r160_in1k", pretrained=True)
    start = time.monotonic()

    with pytest.raises(UserError) as caught:
        create_pretrained(create, "test_vit.r160_in1k")

    assert time.monotonic() - start < 10  # the retries of the hub take 47 s
    message = str(caught.value)
    assert "weights of test_vit.r160_in1k (http://127.0.0.1:9 does not respond)" in message
    assert "connect to the network once" in message
    assert "model.checkpoint_path=<file>" in message
    assert message.endswith("model.pretrained=false")
    assert not constants.HF_HUB_OFFLINE


def test_without_a_connection_cached_weights_are_used(no_hub, tmp_path) -> None:
    published = timm.create_model("test_vit").state_dict()
    snapshot = tmp_path / "hub" / "models--timm--test_vit.r160_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    safetensors.torch.save_file(published, snapshot / "model.safetensors")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    create = partial(timm.create_model, "test_vit.r160_in1k", pretrained=True)

    model = create_pretrained(create, "test_vit.r160_in1k")

    assert all(torch.equal(tensor, published[key]) for key, tensor in model.state_dict().items())


def test_a_connection_error_of_another_server_has_a_readable_message(no_hub) -> None:
    def create() -> nn.Module:
        raise ConnectionResetError("peer went away")

    with pytest.raises(UserError, match=r"weights of alexnet \(ConnectionResetError: peer went away\)"):
        create_pretrained(create, "alexnet")


def test_other_errors_are_raised_unchanged(no_hub) -> None:
    def create() -> nn.Module:
        raise RuntimeError("Unknown model (convnext_tyni)")

    with pytest.raises(RuntimeError, match="convnext_tyni"):
        create_pretrained(create, "convnext_tyni")


def test_a_network_without_a_download_is_returned_without_a_connection(no_hub) -> None:
    model = create_pretrained(lambda: nn.Linear(2, 3), "linear")

    assert isinstance(model, nn.Linear)
