"""Colour operations with one factor per image: colour jitter, sharpness and the tone operations of RandAugment."""

import torch
from torch import Tensor


def grey(values: Tensor) -> Tensor:
    """Return the luma (ITU-R BT.601) of values, shape (B, C, ...), as shape (B, 1, ...); C = 1 is returned as is."""
    if values.shape[1] == 1:
        return values
    return 0.299 * values[:, :1] + 0.587 * values[:, 1:2] + 0.114 * values[:, 2:]


def jitter(
    images: Tensor,
    *,
    brightness: Tensor | None = None,
    contrast: Tensor | None = None,
    saturation: Tensor | None = None,
) -> Tensor:
    """Change the brightness, contrast and saturation of each image.

    Args:
        images: float32 in [0, 1], shape (B, C, S, S).
        brightness: Factors, shape (B,); None for no change.
        contrast: Factors relative to the image's mean luma, shape (B,); None for no change.
        saturation: Factors relative to each pixel's luma, shape (B,); None for no change. No effect on grey images.

    Returns:
        float32 in [0, 1], shape (B, C, S, S).

    Source:
        torchvision's ColorJitter, with one difference: the three operations are one linear map, and values are clamped
        to [0, 1] only at the end. Without the clamps in between the order has no effect, so it is not random.
    """
    one = torch.ones(len(images), 1, 1, 1, device=images.device)
    brightness, contrast, saturation = (
        one if factors is None else factors[:, None, None, None] for factors in (brightness, contrast, saturation)
    )
    mean = grey(images.mean((-2, -1), keepdim=True))  # (B, 1, 1, 1)
    offset = brightness * (1 - contrast) * mean
    if images.shape[1] == 3 and saturation is not one:
        offset = offset + brightness * contrast * (1 - saturation) * grey(images)  # (B, 1, S, S)
        contrast = contrast * saturation
    return torch.addcmul(offset, images, brightness * contrast).clamp_(0, 1)


def sharpen(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image smoothed by a 3x3 kernel (centre 5, others 1), as PIL's ImageEnhance.Sharpness does.

    Args:
        images: float32 in [0, 1], shape (B, C, S, S).
        factors: 0 smooths, 1 changes nothing, 2 sharpens, shape (B,).

    Returns:
        float32 in [0, 1], shape (B, C, S, S); the border pixels are unchanged.
    """
    inner = images[:, :, 1:-1, 1:-1]
    rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])  # (B, C, S - 2, S)
    change = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).sub_(inner, alpha=9)  # 13 (smooth - inner)
    sharpened = images.clone()
    sharpened[:, :, 1:-1, 1:-1].addcmul_(change, (1 - factors[:, None, None, None]) / 13)
    return sharpened.clamp_(0, 1)


def posterize(images: Tensor, bits: int) -> Tensor:
    """Return values in [0, 1], any shape, rounded down to multiples of 1 / 2**bits, at most 1 - 1 / 2**bits."""
    levels = float(2**bits)
    return (images * levels).floor_().clamp_(max=levels - 1).div_(levels)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Return images, shape (B, C, S, S), with values at or above their threshold, shape (B,), inverted."""
    reached = images >= thresholds[:, None, None, None]
    return reached.to(images.dtype).sub_(images).abs_()  # |1 - x| and |0 - x|


def autocontrast(images: Tensor) -> Tensor:
    """Return images, shape (B, C, S, S), with each channel stretched to [0, 1]; a constant channel is unchanged."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)  # (B, C, 1, 1)
    flat = high <= low
    low, gain = low.masked_fill(flat, 0), (high - low).masked_fill(flat, 1).reciprocal()
    return torch.addcmul(-low * gain, images, gain).clamp_(0, 1)


def equalize(images: Tensor) -> Tensor:
    """Equalize the histogram of each channel with 256 levels, as PIL's ImageOps.equalize does.

    Args:
        images: float32 in [0, 1], shape (B, C, S, S).

    Returns:
        Multiples of 1/255 in [0, 1], float32, shape (B, C, S, S); a channel with one level is unchanged.
    """
    pixels = images.mul(255).round_().long().flatten(0, 1).flatten(1)  # (B C, S S)
    rows = torch.arange(len(pixels), device=images.device)[:, None] * 256
    # CUDA's deterministic scatter_add supports only one dimension.
    counts = torch.zeros(len(pixels) * 256, dtype=torch.int64, device=images.device)
    ones = torch.ones(1, dtype=torch.int64, device=images.device).expand(pixels.numel())
    counts = counts.scatter_add_(0, (pixels + rows).flatten(), ones).view(-1, 256)
    brightest = counts.gather(1, pixels.amax(1, keepdim=True))  # (B C, 1)
    step = (pixels.shape[1] - brightest) // 255
    table = (counts.cumsum(1) - counts + step // 2) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp_(0, 255), torch.arange(256, device=images.device))  # (B C, 256)
    return (table.to(images.dtype) / 255).gather(1, pixels).view_as(images)
