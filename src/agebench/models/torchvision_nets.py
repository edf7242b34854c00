"""AlexNet and GoogLeNet, which timm does not have, from torchvision with the arguments of timm."""

from typing import Any

import torchvision
from torch import nn

from agebench.errors import UserError
from agebench.models.weights import adapt_channels

_INCEPTION_STATISTICS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def create_torchvision(
    model_name: str, *, in_chans: int, num_classes: int, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Return AlexNet or GoogLeNet as a network from images (B, in_chans, S, S) to outputs (B, num_classes).

    GoogLeNet has no auxiliary classifiers here, so that it also returns one tensor in training. If in_chans is not 3,
    the first convolution is adapted as in timm. If num_classes is not 1000, a pretrained network gets a new last layer.
    As in timm, `pretrained_cfg` holds the mean and standard deviation per channel of the published weights.

    Args:
        model_name: `alexnet` or `googlenet`.
        in_chans: Number of channels of the images.
        num_classes: Number of outputs.
        pretrained: Whether to load torchvision's IMAGENET1K_V1 weights, which are downloaded once.
        options: Further arguments of torchvision, such as `dropout`.

    Raises:
        UserError: If model_name is not one of these.
    """
    if model_name not in ("alexnet", "googlenet"):
        raise UserError(
            f"model_name must be alexnet or googlenet for a torchvision model, got {model_name}: "
            f"try model=timm model.model_name={model_name}"
        )
    weights = torchvision.models.get_model_weights(model_name)["IMAGENET1K_V1"]
    preset = weights.transforms()
    statistics: dict[str, Any] = {"mean": tuple(preset.mean), "std": tuple(preset.std)}
    if model_name == "googlenet":
        # transform_input, which is disabled below, converts ImageNet statistics to these, for three channels only.
        statistics = _INCEPTION_STATISTICS
        # For pretrained weights torchvision removes the auxiliary classifiers and rejects these arguments.
        options = options if pretrained else {"aux_logits": False, "init_weights": True, **options}
    model: Any = torchvision.models.get_model(
        model_name, weights=weights if pretrained else None, num_classes=1000 if pretrained else num_classes, **options
    )
    if model_name == "googlenet":
        model.transform_input = False
    _set_channels(next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), in_chans)
    if pretrained and num_classes != 1000:
        parent, name = (model, "fc") if model_name == "googlenet" else (model.get_submodule("classifier"), "6")
        setattr(parent, name, nn.Linear(getattr(parent, name).in_features, num_classes))
    model.pretrained_cfg = {**statistics, "tag": "tv_in1k", "input_size": (3, 224, 224)}
    network: nn.Module = model
    return network


def _set_channels(conv: nn.Conv2d, in_chans: int) -> None:
    if conv.in_channels != in_chans:
        conv.weight = nn.Parameter(adapt_channels(conv.weight.detach(), in_chans))
        conv.in_channels = in_chans
