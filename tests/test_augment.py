"""Augmentation against torchvision, NumPy and the documented distributions."""

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.stats import ks_2samp, kstest
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from agebench.augment import Augment, RandAugment
from agebench.augment.colour import equalize, jitter, sharpen
from agebench.augment.geometry import affine, paint, random_boxes, warp
from agebench.augment.randaugment import OPERATIONS, change_some
from agebench.errors import UserError
from agebench.testing import check_augmentation

CPU = torch.device("cpu")
CONFIGS = sorted((Path(__file__).parents[1] / "conf" / "augment").glob("*.yaml"))
RANDOM = [path for path in CONFIGS if path.stem != "none"]


def by_name(path: Path) -> str:
    return path.stem


def images_of(channels: int, side: int = 24, count: int = 6, seed: int = 0) -> Tensor:
    """Return sine waves with noise, 8-bit levels from about 0.1 to 0.9, shape (count, channels, side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = rng.uniform(1, 8, (count, channels, 2, 1, 1))
    values = 0.5 + 0.4 * np.sin(waves[:, :, 0] * x + waves[:, :, 1] * y + rng.uniform(0, 6, (count, channels, 1, 1)))
    values = values * 0.9 + 0.05 + rng.uniform(-0.04, 0.04, values.shape)
    return torch.from_numpy(np.round(values * 255) / 255).float()


def blobs(count: int, side: int, right: float) -> Tensor:
    """Return images of one Gaussian blob, `right` pixels right of the centre, shape (count, 1, side, side)."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    spot = np.exp(-((x - right) ** 2 + y**2) / (2 * 1.5**2))
    return torch.from_numpy(spot).float().expand(count, 1, side, side).clone()


def centroids(images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of mass (x, y) in pixels relative to the image centre, shape (count,) each."""
    mass = images[:, 0].double().numpy()
    y, x = np.mgrid[: mass.shape[1], : mass.shape[2]] - (mass.shape[1] - 1) / 2
    total = mass.sum((1, 2))
    return (mass * x).sum((1, 2)) / total, (mass * y).sum((1, 2)) / total


def full(count: int, value: float) -> Tensor:
    return torch.full((count,), value)


def seeded(augment: torch.nn.Module, images: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return augment(images)


def map_of(count: int, degrees: float = 0.0, scale: float = 1.0, right: float = 0.0, down: float = 0.0) -> Tensor:
    return affine(full(count, degrees), full(count, scale), full(count, right), full(count, down))


@pytest.mark.parametrize(
    "on",
    [
        {"flip": 0.5},
        {"degrees": 5},
        {"translate": 0.1},
        {"scale": (0.9, 1.1)},
        {"crop_scale": (0.5, 1)},
        {"brightness": 0.2},
        {"contrast": 0.2},
        {"saturation": 0.2},
        {"erase": 0.5},
    ],
    ids=str,
)
def test_augmentation_is_idle_only_if_every_transform_is_off(on) -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 3, 8, 8)

    augment = Augment(**on)

    assert Augment(fill=0.5, crop_ratio=(0.5, 2), at_test=True).idle
    assert not augment.idle
    assert not torch.equal(augment(images), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_with_everything_off_returns_the_same_tensor(channels: int) -> None:
    images = images_of(channels)

    assert Augment()(images) is images
    assert RandAugment(num_ops=0)(images) is images


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flip_with_probability_one_equals_torch_flip(channels: int) -> None:
    images = images_of(channels)

    flipped = Augment(flip=1.0)(images)
    resampled = Augment(flip=1.0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))(images)

    assert torch.equal(flipped, torch.flip(images, (-1,)))
    assert torch.allclose(resampled, torch.flip(images, (-1,)), atol=1e-4)


def test_about_half_of_the_images_are_flipped_with_probability_one_half() -> None:
    images = images_of(1, count=1).expand(2000, -1, -1, -1)

    flipped = (Augment(flip=0.5)(images) != images).flatten(1).any(1).sum().item()

    assert 900 < flipped < 1100  # 4.5 standard deviations


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [24, 25])
def test_a_clockwise_rotation_by_90_degrees_equals_rot90(channels: int, side: int) -> None:
    images = images_of(channels, side)

    rotated = warp(images, map_of(len(images), degrees=90), 0.0)

    assert torch.allclose(rotated, torch.rot90(images, -1, (-2, -1)), atol=1e-4)


@pytest.mark.parametrize("degrees", [-70.0, 0.0, 25.0])
@pytest.mark.parametrize(("scale", "pixels"), [(0.8, (3, -2)), (1.1, (0, 0)), (1.0, (-5, 4))])
def test_affine_agrees_with_torchvision(degrees: float, scale: float, pixels: tuple[int, int]) -> None:
    images = images_of(3, side=40)
    right, down = pixels

    ours = warp(images, map_of(len(images), degrees, scale, right / 40, down / 40), 0.0)
    theirs = tvf.affine(images, degrees, [right, down], scale, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR)

    assert torch.allclose(ours, theirs, atol=1e-4)


def test_pixels_outside_the_input_have_the_fill_value() -> None:
    images = torch.full((4, 3, 20, 20), 0.3)

    seamless = warp(images, map_of(4, degrees=45, scale=0.7), 0.3)
    shrunk = warp(images, map_of(4, scale=0.5), 0.9)

    assert torch.allclose(seamless, images, atol=1e-6)
    assert torch.allclose(shrunk[:, :, :4], torch.tensor(0.9), atol=1e-6)
    assert torch.allclose(shrunk[:, :, 8:12, 8:12], torch.tensor(0.3), atol=1e-6)


def test_a_crop_has_no_dark_border() -> None:
    images = torch.full((64, 1, 16, 16), 0.8)

    cropped = Augment(crop_scale=(0.5, 1.0), flip=0.5)(images)

    assert torch.allclose(cropped, images, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_equals_the_formulas_in_float64(channels: int) -> None:
    images = images_of(channels, count=24)
    augment = Augment(brightness=0.8, contrast=0.9, saturation=0.7)
    torch.manual_seed(3)
    factors = augment.draw_factors(len(images), CPU)
    b, c, s = (factors[k].double().numpy()[:, None, None, None] for k in ("brightness", "contrast", "saturation"))
    x = images.double().numpy()

    torch.manual_seed(3)
    ours = augment(images)

    luma = (x * (np.array([0.299, 0.587, 0.114]) if channels == 3 else np.ones(1))[:, None, None]).sum(1, keepdims=True)
    x, luma = x * b, luma * b
    x = c * x + (1 - c) * luma.mean((2, 3), keepdims=True)
    luma = c * luma + (1 - c) * luma.mean((2, 3), keepdims=True)
    x = s * x + (1 - s) * luma
    assert np.abs(ours.numpy() - x.clip(0, 1)).max() < 1e-5
    assert (x > 1).any()  # so the clamp is tested too


def test_jitter_agrees_with_torchvision_if_nothing_is_clamped() -> None:
    images = images_of(3) * 0.5 + 0.2

    ours = jitter(images, brightness=full(6, 1.1), contrast=full(6, 0.85), saturation=full(6, 1.2))
    theirs = tvf.adjust_saturation(tvf.adjust_contrast(tvf.adjust_brightness(images, 1.1), 0.85), 1.2)

    assert torch.allclose(ours, theirs, atol=2e-4)  # torchvision's luma weights sum to 0.9999


def test_rotation_and_scale_are_uniform_over_the_hiragana_ranges() -> None:
    torch.manual_seed(0)
    images = blobs(2000, side=41, right=10.0)

    x, y = centroids(Augment(degrees=90, scale=(0.8, 1.1))(images))

    assert kstest(np.degrees(np.arctan2(y, x)), "uniform", (-90, 180)).pvalue > 0.001
    assert kstest(np.hypot(x, y) / 10, "uniform", (0.8, 0.3)).pvalue > 0.001


def test_shifts_are_uniform_in_both_directions() -> None:
    torch.manual_seed(0)
    images = blobs(2000, side=40, right=0.0)

    x, y = centroids(Augment(translate=0.1)(images))

    assert kstest(x / 40, "uniform", (-0.1, 0.2)).pvalue > 0.001
    assert kstest(y / 40, "uniform", (-0.1, 0.2)).pvalue > 0.001
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.1


def test_crops_have_the_same_distribution_as_torchvisions() -> None:
    torch.manual_seed(0)
    frame = torch.empty(1, 1000, 1000)
    theirs = np.array([RandomResizedCrop.get_params(frame, [0.6, 1.0], [3 / 4, 4 / 3]) for _ in range(1500)]) / 1000

    left, top, width, height = random_boxes(1500, (0.6, 1.0), (3 / 4, 4 / 3), CPU).numpy()

    assert ks_2samp(width * height, theirs[:, 2] * theirs[:, 3]).pvalue > 0.001
    assert ks_2samp(width / height, theirs[:, 3] / theirs[:, 2]).pvalue > 0.001
    assert ks_2samp(left, theirs[:, 1]).pvalue > 0.001
    assert ks_2samp(top, theirs[:, 0]).pvalue > 0.001
    assert (left + width).max() <= 1 + 1e-6
    assert (top + height).max() <= 1 + 1e-6


def test_a_crop_shows_the_sampled_box() -> None:
    y, x = np.mgrid[:32, :32]
    ramps = torch.from_numpy(np.stack([x, y, x]) / 31).float().expand(50, 3, 32, 32)
    augment = Augment(crop_scale=(0.3, 0.6))
    torch.manual_seed(1)
    maps = augment.draw_maps(50, CPU).double().numpy()

    torch.manual_seed(1)
    cropped = augment(ramps).double().numpy() * 31

    # In coordinates from -1 to 1 the centre of output pixel 16 is 1/32, that of input pixel k is (2k + 1)/32 - 1.
    expected_x = ((maps[:, 0, 0] / 32 + maps[:, 0, 2] + 1) * 32 - 1) / 2
    expected_y = ((maps[:, 1, 1] / 32 + maps[:, 1, 2] + 1) * 32 - 1) / 2
    assert np.abs(cropped[:, 0, 16, 16] - expected_x).max() < 1e-3
    assert np.abs(cropped[:, 1, 16, 16] - expected_y).max() < 1e-3
    assert ((maps[:, 0, 0] * maps[:, 1, 1] > 0.29) & (maps[:, 0, 0] * maps[:, 1, 1] < 0.61)).all()


@pytest.mark.parametrize("ratio", [(2.0, 2.5), (0.4, 0.5)])
def test_boxes_have_the_requested_aspect_ratio_and_area(ratio: tuple[float, float]) -> None:
    torch.manual_seed(0)

    _, _, width, height = random_boxes(2000, (0.1, 0.3), ratio, CPU).numpy()

    assert (width / height).min() >= ratio[0] - 1e-4
    assert (width / height).max() <= ratio[1] + 1e-4
    assert (width * height).min() >= 0.1 - 1e-4
    assert (width * height).max() <= 0.3 + 1e-4


@pytest.mark.parametrize("ratio", [2.0, 0.5])
def test_crops_have_the_requested_aspect_ratio(ratio: float) -> None:
    torch.manual_seed(0)
    y, x = np.mgrid[:48, :48]
    ramps = torch.from_numpy(np.stack([x, y, x]) / 47).float().expand(20, 3, 48, 48)

    cropped = Augment(crop_scale=(0.2, 0.4), crop_ratio=(ratio, ratio))(ramps).double().numpy() * 47

    # Distance in the input between two points that are 32 pixels apart in the output.
    across, down = cropped[:, 0, 24, 40] - cropped[:, 0, 24, 8], cropped[:, 1, 40, 24] - cropped[:, 1, 8, 24]
    np.testing.assert_allclose(across / down, ratio, rtol=1e-3)
    assert ((across * down / 32**2 > 0.199) & (across * down / 32**2 < 0.401)).all()


def test_erased_boxes_have_aspect_ratios_from_0_3_to_3_3() -> None:
    torch.manual_seed(0)

    _, _, width, height = Augment(erase=1.0).draw_erased(100_000, CPU).double().numpy()

    # 1 / 0.3 is more than 3.3, so the test fails if width and height are swapped.
    ratio = width / height
    assert (ratio.min(), ratio.max()) == (pytest.approx(0.3, abs=1e-3), pytest.approx(3.3, abs=1e-2))
    assert ratio.max() < 3.3 + 1e-4


def test_colour_factors_are_uniform_about_one() -> None:
    torch.manual_seed(0)

    factors = Augment(brightness=0.2, contrast=0.4).draw_factors(2000, CPU)

    assert factors.keys() == {"brightness", "contrast"}
    assert kstest(factors["brightness"].numpy(), "uniform", (0.8, 0.4)).pvalue > 0.001
    assert kstest(factors["contrast"].numpy(), "uniform", (0.6, 0.8)).pvalue > 0.001


def test_erasing_with_probability_one_quarter_covers_2_to_33_percent() -> None:
    torch.manual_seed(0)
    images = torch.full((4000, 1, 48, 48), 0.2)

    erased = Augment(erase=0.25, fill=0.7)(images)

    holes = (erased == 0.7)[:, 0].numpy()
    areas = holes.mean((1, 2))
    hit = areas > 0
    assert ((erased == 0.7) | (erased == 0.2)).all()
    assert 0.22 < hit.mean() < 0.28  # 4 standard deviations
    assert kstest(areas[hit], "uniform", (0.02, 0.31)).pvalue > 0.001
    assert (holes.any(1).sum(1) * holes.any(2).sum(1) == holes.sum((1, 2))).all()  # each hole is one rectangle


def test_paint_sets_only_pixels_whose_centres_lie_in_the_box() -> None:
    images = torch.zeros(1, 1, 10, 10)
    expected = torch.zeros(1, 1, 10, 10)
    expected[:, :, 5:9, 2:5] = 1.0

    painted = paint(images, torch.tensor([[0.2], [0.46], [0.3], [0.4]]), 1.0)

    assert torch.equal(painted, expected)


@pytest.mark.parametrize("path", RANDOM, ids=by_name)
def test_images_of_a_batch_have_independent_parameters(path: Path) -> None:
    torch.manual_seed(0)
    images = images_of(3, count=1).expand(16, -1, -1, -1).clone()

    changed = instantiate(OmegaConf.load(path))(images)

    different = {row.numpy().tobytes() for row in changed}
    assert len(different) >= 14  # RandAugment may sample the same operations for two images


@pytest.mark.parametrize("path", CONFIGS, ids=by_name)
def test_every_config_keeps_the_contract_and_is_off_in_the_test(path: Path) -> None:
    options = OmegaConf.to_container(OmegaConf.load(path))

    check_augmentation(options.pop("_target_"), **options)

    assert options["at_test"] is False


@pytest.mark.parametrize("path", RANDOM, ids=by_name)
def test_the_memory_format_does_not_change_the_output(path: Path) -> None:
    augment, images = instantiate(OmegaConf.load(path)), images_of(3)

    plain = seeded(augment, images, 0)
    last = seeded(augment, images.contiguous(memory_format=torch.channels_last), 0)

    # Rounding differs between memory formats; posterize can amplify it to one level in a few pixels.
    assert ((last - plain).abs() > 1e-4).float().mean() < 1e-3


@pytest.mark.parametrize("path", CONFIGS, ids=by_name)
def test_every_config_lists_all_arguments(path: Path) -> None:
    config = OmegaConf.load(path)

    keys = {str(key) for key in config} - {"_target_"}

    assert keys == set(inspect.signature(type(instantiate(config)).__init__).parameters) - {"self"}
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1.5},
        {"flip": True},
        {"flip": float("nan")},
        {"degrees": -1},
        {"degrees": "ten"},
        {"translate": 2},
        {"scale": [1.1, 0.8]},
        {"scale": [0.0, 1.0]},
        {"scale": 0.8},
        {"crop_scale": [0.5, 1.2]},
        {"crop_ratio": [1.0]},
        {"brightness": -0.1},
        {"contrast": 3},
        {"saturation": None},
        {"erase": 7},
        {"fill": 255},
        {"at_test": "yes"},
    ],
    ids=str,
)
def test_the_error_names_an_argument_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"augment.{next(iter(wrong))} must be"):
        Augment(**wrong)


@pytest.mark.parametrize("wrong", [{"num_ops": -1}, {"num_ops": 1.5}, {"magnitude": 31}, {"fill": 2}], ids=str)
def test_the_error_names_an_argument_of_randaugment_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"augment.{next(iter(wrong))} must be"):
        RandAugment(**wrong)


def test_images_of_wrong_shape_or_dtype_raise_an_error() -> None:
    for images in (
        torch.rand(2, 3, 8, 9),
        torch.rand(3, 8, 8),
        torch.rand(2, 4, 8, 8),
        torch.rand(2, 3, 8, 8).double(),
    ):
        with pytest.raises(ValueError, match="expected float32 images"):
            Augment(flip=0.5)(images)


def torchvision_operation(name: str, images: Tensor, magnitude: float, sign: int) -> Tensor:
    """Return the result of torchvision's operation, with shears about the centre."""
    share = magnitude / 30
    slope = math.degrees(math.atan(-sign * 0.3 * share))
    shift = sign * 150 / 331 * images.shape[-1] * share

    def moved(angle: float = 0.0, x: float = 0.0, y: float = 0.0, shear: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        return tvf.affine(images, angle, [x, y], 1.0, list(shear), interpolation=InterpolationMode.BILINEAR)

    factor = 1 + sign * 0.9 * share
    return {
        "identity": lambda: images,
        "shear_x": lambda: moved(shear=(slope, 0.0)),
        "shear_y": lambda: moved(shear=(0.0, slope)),
        "translate_x": lambda: moved(x=shift),
        "translate_y": lambda: moved(y=shift),
        "rotate": lambda: moved(angle=sign * 30 * share),
        "brightness": lambda: tvf.adjust_brightness(images, factor),
        "saturation": lambda: tvf.adjust_saturation(images, factor),
        "contrast": lambda: tvf.adjust_contrast(images, factor),
        "sharpness": lambda: tvf.adjust_sharpness(images, factor),
        "posterize": lambda: tvf.posterize(images, 8 - round(4 * share)),
        "solarize": lambda: tvf.solarize(images, 1 - share),
        "autocontrast": lambda: tvf.autocontrast(images),
        "equalize": lambda: tvf.equalize(images),
    }[name]()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_agrees_with_torchvision(name: str, channels: int, sign: int) -> None:
    images = images_of(channels, side=36, count=len(OPERATIONS))
    row, augment = OPERATIONS.index(name), RandAugment(num_ops=1, magnitude=17)
    draws = torch.arange(len(OPERATIONS))[None]

    ours = augment.apply_operations(images, draws, torch.full_like(draws, sign))[row]
    theirs = torchvision_operation(name, images[row : row + 1], 17, sign)[0]

    difference = (ours - theirs).abs()
    assert difference.mean() < 2e-4
    assert difference.max() < (0.1 if name == "posterize" else 1e-3)  # there a rounding error may become one level
    assert name == "identity" or (channels == 1 and name == "saturation") or (ours - images[row]).abs().max() > 0.01


@pytest.mark.parametrize("chosen", [[], [3], [0, 3, 4], list(range(5))])
def test_selecting_and_masking_images_give_equal_results(chosen: list[int]) -> None:
    images, factors = images_of(3, side=20, count=5), torch.linspace(0.2, 1.8, 5)
    mask = torch.zeros(5, dtype=torch.bool).index_fill_(0, torch.tensor(chosen, dtype=torch.long), True)

    for change in (lambda some, rows: sharpen(some, factors[rows]), lambda some, _: equalize(some)):
        selected = change_some(images.clone(), mask, change, count=True)
        masked = change_some(images.clone(), mask, change, count=False)

        assert torch.equal(selected, masked)
        assert torch.equal(selected[~mask], images[~mask])
        assert not chosen or not torch.equal(selected[mask], images[mask])


def test_operations_are_applied_in_order() -> None:
    images = images_of(3, side=36, count=1)
    draws = torch.tensor([[OPERATIONS.index("translate_x")], [OPERATIONS.index("rotate")]])
    signs = torch.ones_like(draws)

    ours = RandAugment(magnitude=9).apply_operations(images, draws, signs)

    shift = np.eye(3)
    shift[0, 2] = 150 / 331 * 36 * 0.3
    angle = math.radians(9)
    rotation = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    x, y = (rotation @ shift)[:2, 2]
    theirs = tvf.affine(images, 9.0, [x, y], 1.0, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR)
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_randaugment_samples_the_identity_as_often_as_expected() -> None:
    torch.manual_seed(0)
    images = (images_of(3, count=1) * 0.7 + 0.1).expand(1400, -1, -1, -1)

    changed = RandAugment(num_ops=1, magnitude=30)(images)

    untouched = ((changed - images).abs().flatten(1).amax(1) < 1e-4).sum().item()
    assert 60 < untouched < 140  # only the identity leaves images unchanged: 100 expected, ± 4 standard deviations


@pytest.mark.gpu
@pytest.mark.parametrize("path", CONFIGS, ids=by_name)
def test_no_config_synchronizes_with_the_gpu(path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    augment, images = instantiate(OmegaConf.load(path)), images_of(3).cuda()
    augment(images)

    torch.cuda.set_sync_debug_mode("error")
    try:
        changed = augment(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert changed.device == images.device
