"""What a network sees: HiResCAM, occlusion, the kernels of the first layer, and the feature maps of its stages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Score = Callable[[Tensor], Tensor]  # outputs (B, K) -> the explained number of each image (B,)

MIN_GRID = 4  # positions along a side; a coarser map says little about where the network looks
MAX_STAGES = 5
STAGE_DEPTH = 1  # dots in the name of a stage, such as `layer4` or `stages.3`
MAX_MAPS = 8  # feature maps of a stage
MAX_KERNELS = 64


class Heat(NamedTuple):
    """Where the explained number comes from.

    Args:
        maps: Positive where the image raises the number, float, shape (B, S, S).
        method: `HiResCAM` or `occlusion`.
        layer: The layer that HiResCAM uses, empty for occlusion.
    """

    maps: Tensor
    method: str
    layer: str


class _Output(NamedTuple):
    """The output of a layer: its name, the tensor, and the same as maps, shape (B, C, H, W)."""

    name: str
    tensor: Tensor
    maps: Tensor


def explain(network: nn.Module, images: Tensor, score: Score) -> Heat:
    """Return where a number that is computed from the network's outputs comes from.

    The method is HiResCAM, a form of Grad-CAM: each value of a feature map is weighted by its own gradient. Grad-CAM
    averages the gradients of a map over its positions first. Both are equal if the network averages its last maps. If
    it flattens them, as LeNet does, the average says little: for `small_cnn` on 730 hiragana the correlation with
    occlusion is 0.87 for HiResCAM and 0.07 for Grad-CAM. Regions that lower the number are negative.

    The layer is the last one with at least 4 x 4 positions. In a transformer that classifies by a class token it is the
    input of the last attention, because later patch tokens have no effect. A network without such a layer (MLP) is
    explained by occlusion: the number falls where an important region is replaced by the mean of the train images.

    Args:
        network: Maps images to outputs (B, K); runs in evaluation mode.
        images: Normalised images, float, shape (B, C, S, S).
        score: Returns the number to explain from the outputs.

    Source:
        Draelos and Carin (2020), arXiv:2011.08891, for HiResCAM; Selvaraju et al. (2017), arXiv:1610.02391, for
        Grad-CAM; Zeiler and Fergus (2014), arXiv:1311.2901, for occlusion.
    """
    outputs, layers = _run(network, images, gradients=True)
    found = _cam_layer(network, layers)
    if found is None:
        return Heat(_occlude(network, images, score), "occlusion", "")
    (gradient,) = torch.autograd.grad(score(outputs).sum(), found.tensor)
    shaped = _as_maps(network, gradient)
    if shaped is None:
        raise RuntimeError(f"the gradient of {found.name} has another shape than its output")
    heat = (shaped * found.maps).sum(1).detach()  # (B, C, H, W) -> (B, H, W)
    return Heat(_upsample(heat, images), "HiResCAM", found.name)


def first_kernels(network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor | None:
    """Return the weights of the first layer as images, float, shape (K, C, h, w); None if they are no images.

    For an MLP these are the weights of its units, of the size of an image.

    Args:
        network: The network.
        image_shape: (C, S, S).
    """
    first = next((each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)), None)
    if isinstance(first, nn.Linear) and first.in_features == torch.Size(image_shape).numel():
        return first.weight.detach().reshape(-1, *image_shape)[:MAX_KERNELS].float().cpu()
    if isinstance(first, nn.Conv2d) and first.groups == 1 and first.kernel_size[0] > 1:
        return first.weight.detach()[:MAX_KERNELS].float().cpu()
    return None


def stage_maps(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return the feature maps of at most 5 stages for one image, by layer: float, shape (c, h, w), c at most 8.

    A stage is the last layer of each resolution; for a transformer with one resolution, blocks at even steps. The maps
    are those that vary most over the image.

    Args:
        network: The network; runs in evaluation mode.
        image: A normalised image, float, shape (C, S, S).
    """
    stages = [each for each in _stages(network, _run(network, image[None])[1]) if each.maps.shape[-1] > 1]
    found = {}
    for stage in stages[-MAX_STAGES:]:
        maps = stage.maps[0].detach().float()
        order = maps.flatten(1).std(1).argsort(descending=True, stable=True)[:MAX_MAPS]
        found[stage.name] = maps[order].cpu()
    return found


def _run(network: nn.Module, images: Tensor, *, gradients: bool = False) -> tuple[Tensor, list[_Output]]:
    """Return the outputs of a network, and those of its layers that are maps, in the order of execution."""
    layers: list[_Output] = []

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            maps = _as_maps(network, output) if isinstance(output, Tensor) else None
            if maps is not None and len(maps) == len(images):
                layers.append(_Output(name, output, maps))

        return hook

    hooks = [each.register_forward_hook(record(name)) for name, each in network.named_modules() if name]
    try:
        with _evaluating(network), torch.set_grad_enabled(gradients):
            # The input needs a gradient, so that frozen layers have one as well.
            outputs = network(images.detach().requires_grad_(gradients))
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, layers


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Context manager: the network is in evaluation mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:  # not network.train(): a frozen module stays in evaluation mode
            module.training = training


def _as_maps(network: Any, output: Tensor) -> Tensor | None:
    """Return the output of a layer as maps, shape (B, C, H, W); None if it is not of that kind."""
    if output.ndim == 4:
        maps = output.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else output
        return maps if maps.shape[2] == maps.shape[3] and maps.shape[2] > 1 else None
    if output.ndim != 3 or output.shape[2] != getattr(network, "embed_dim", None):
        return None
    tokens = output[:, getattr(network, "num_prefix_tokens", 0) :]
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side)) if side > 1 and side**2 == tokens.shape[1] else None


def _cam_layer(network: nn.Module, layers: list[_Output]) -> _Output | None:
    stages = _stages(network, layers)
    if stages and stages[-1].tensor.ndim == 3:  # tokens
        last = f"blocks.{len(network.blocks) - 1}.norm1"  # type: ignore[arg-type]  # of timm's transformers
        return next((each for each in layers if each.name == last), stages[-1])
    fine = [each for each in stages if each.maps.shape[-1] >= MIN_GRID]
    return fine[-1] if fine else None


def _stages(network: nn.Module, layers: list[_Output]) -> list[_Output]:
    """Return the last layer of each resolution, or the blocks of a transformer with one resolution."""
    tokens = [each for each in layers if each.tensor.ndim == 3 and each.name.startswith("blocks.")]
    blocks = [each for each in tokens if each.name.count(".") == 1]
    if blocks:
        steps = torch.linspace(0, len(blocks) - 1, min(MAX_STAGES, len(blocks))).round().int().tolist()
        return [blocks[step] for step in steps]
    last: dict[int, _Output] = {}
    for each in layers:
        side, depth = each.maps.shape[-1], each.name.count(".")
        if last and side >= 2 * min(last):  # adaptive pooling can enlarge
            continue
        # Deeper names are layers inside a block: its first ones still have the resolution of the stage before it.
        if side not in last or depth <= max(STAGE_DEPTH, last[side].name.count(".")):
            last[side] = each
    return list(last.values())


def _upsample(maps: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _occlude(network: nn.Module, images: Tensor, score: Score) -> Tensor:
    """Return how much the score falls if a square around each position is replaced by 0, the mean of train images.

    The side of the square is a fifth of that of the image, and it moves by half its side.
    """
    side = images.shape[-1]
    patch = max(2, side // 5)
    total, covered = images.new_zeros(len(images), side, side), images.new_zeros(side, side)
    with _evaluating(network), torch.no_grad():
        full = score(network(images))
        for top in range(1 - patch // 2, side, max(1, patch // 2)):
            for left in range(1 - patch // 2, side, max(1, patch // 2)):
                rows, columns = (slice(max(start, 0), start + patch) for start in (top, left))
                hidden = images.clone()
                hidden[:, :, rows, columns] = 0
                total[:, rows, columns] += (full - score(network(hidden)))[:, None, None]
                covered[rows, columns] += 1
    return total / covered.clamp(min=1)
