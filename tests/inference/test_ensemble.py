"""Several runs as one model: the posterior is the mean of the members', a soup the mean of their weights."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from agebench.build.ensemble import build_ensemble
from agebench.inference.ensemble import value_of
from agebench.inference.export import ExportedModel, write_onnx
from agebench.inference.soup import average_weights, greedy_soup
from agebench.models.normalise import Normalise
from agebench.module import ImageModule

CONF = Path(__file__).parents[2] / "conf"
SHAPE = [3, 8, 8]
SHIFTS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]  # px, down and to the right


def module_of(head_name: str, seed: int, **settings: object) -> ImageModule:
    torch.manual_seed(seed)
    node = OmegaConf.merge(OmegaConf.load(CONF / "head" / f"{head_name}.yaml"), settings)
    head = instantiate(node, 6, [20.0 + i for i in range(6)], ordered=True)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, head.num_outputs)
    )
    nn.init.normal_(network[4].weight, std=0.3)
    return ImageModule(
        network,
        head,
        normalise=Normalise([0.1 * seed, 0.5, 0.6], [0.2, 0.3, 0.1 + 0.1 * seed]),
        augment=nn.Identity(),
        optim=torch.optim.SGD,
        scheduler=None,
        unit="years",
        channels_last=seed % 2 == 0,
        seed=seed,
        stamp={},
    ).eval()


def images_of(count: int) -> torch.Tensor:
    return torch.randint(256, (count, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def predict(module: ImageModule, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        posterior, point = module.eval().predict_step(images)
    return posterior.double().numpy(), point.double().numpy()


def shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return images shifted by at most one pixel, with NumPy's padding by edge pixels."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    return padded[:, :, 1 - down : 9 - down, 1 - right : 9 - right]


def median(posterior: np.ndarray) -> np.ndarray:
    return 20.0 + (posterior.cumsum(1) >= 0.5).argmax(1)


def test_the_posterior_is_the_mean_and_the_estimate_is_its_median() -> None:
    members, images = [module_of(head, i) for i, head in enumerate(("softmax", "coral", "softmax"))], images_of(40)
    single = [predict(member, images) for member in members]

    posterior, point = predict(build_ensemble(members, None), images)

    expected = np.mean([each[0] for each in single], axis=0)
    np.testing.assert_allclose(posterior, expected, atol=1e-6)
    np.testing.assert_array_equal(point, median(expected))
    assert (point != np.mean([each[1] for each in single], axis=0)).any()


@pytest.mark.parametrize(
    "heads", [("regression", "regression"), ("softmax", "regression"), ("softmax", "mean_variance")]
)
def test_the_estimate_is_the_mean_of_the_estimates_unless_all_decode_the_posterior_alike(heads) -> None:
    members, images = [module_of(head, i) for i, head in enumerate(heads)], images_of(40)
    single = [predict(member, images) for member in members]

    _, point = predict(build_ensemble(members, None), images)

    np.testing.assert_allclose(point, np.mean([each[1] for each in single], axis=0), rtol=1e-5)


def test_regressions_that_decode_their_posterior_are_decoded_from_the_mean() -> None:
    members, images = [module_of("regression", i, decode="median") for i in (0, 1)], images_of(40)

    posterior, point = predict(build_ensemble(members, None), images)

    np.testing.assert_array_equal(point, median(posterior))


@pytest.mark.parametrize(
    ("tta", "views"),
    [
        ("flip", [(0, 0, 1), (0, 0, -1)]),
        ("shift", [(*shift, 1) for shift in SHIFTS]),
        ("flip+shift", [(*shift, step) for shift in SHIFTS for step in (1, -1)]),
    ],
)
def test_tta_is_the_mean_over_views_made_with_numpy(tta, views) -> None:
    members, images = [module_of("softmax", i) for i in (0, 1)], images_of(9)
    pixels = [shifted(images.numpy(), down, right)[..., ::step].copy() for down, right, step in views]
    expected = np.mean([predict(member, torch.from_numpy(each))[0] for member in members for each in pixels], axis=0)

    posterior, _ = predict(build_ensemble(members, tta), images)

    np.testing.assert_allclose(posterior, expected, atol=1e-6)


def test_a_flip_changes_nothing_for_a_symmetric_network_and_makes_any_other_symmetric() -> None:
    symmetric, images = module_of("softmax", 0), images_of(9)
    symmetric.model = nn.Sequential(nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(6, 6))
    other = build_ensemble([module_of("softmax", 1)], "flip")

    flipped = predict(build_ensemble([symmetric], "flip"), images)[0]

    np.testing.assert_allclose(flipped, predict(symmetric, images)[0], atol=1e-6)
    np.testing.assert_allclose(predict(other, images.flip(3))[0], predict(other, images)[0], atol=1e-6)
    assert np.abs(predict(module_of("softmax", 1), images.flip(3))[0] - predict(other, images)[0]).max() > 1e-3


def test_a_single_run_without_views_is_the_run() -> None:
    module = module_of("softmax", 0)

    assert build_ensemble([module], None) is module


@pytest.mark.ci
@pytest.mark.parametrize(
    ("heads", "views"),
    [(("softmax", "coral"), "flip"), (("regression",), "flip+shift")],
)
def test_onnx_runtime_has_the_outputs_of_an_ensemble_for_any_batch_size(tmp_path, heads, views) -> None:
    ensemble = build_ensemble([module_of(head, i) for i, head in enumerate(heads)], views)
    write_onnx(ExportedModel(ensemble), SHAPE, tmp_path / "m.onnx", "{}")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])

    for count in (1, 4):
        posterior, point = session.run(None, {"images": images_of(count).numpy()})

        expected = predict(ensemble, images_of(count))
        np.testing.assert_allclose(posterior, expected[0], atol=1e-5)
        np.testing.assert_allclose(point, expected[1], atol=1e-3)


def test_the_weights_of_a_soup_are_the_means_computed_by_hand_and_counters_are_kept() -> None:
    states = [module_of("softmax", i).state_dict() for i in (0, 1, 2)]
    states[1]["model.1.num_batches_tracked"] += 7
    by_hand = {name: sum(state[name].double().numpy() for state in states) / 3 for name in states[0]}

    mean = average_weights(states)

    assert mean.keys() == states[0].keys()
    assert mean["model.1.num_batches_tracked"].item() == 0
    for name in set(mean) - {"model.1.num_batches_tracked"}:
        np.testing.assert_allclose(mean[name].numpy(), by_hand[name], rtol=1e-6, atol=1e-8)
        assert mean[name].dtype == states[0][name].dtype


@pytest.mark.parametrize(
    ("values", "chosen", "cost"),
    [
        ([4.0, -1.0, 1.0], [1, 2], 0.0),  # |1| and |-1|: their mean is 0; with 4 the mean is 4/3
        ([2.0, 3.0, 4.0], [0], 2.0),  # every addition is worse
        ([2.0, 2.0], [0, 1], 2.0),  # an addition that is not worse is kept
        ([1.0, 1.0, -1.7], [0, 1, 2], 0.1),  # the mean of all three
        ([float("nan"), 3.0], [1], 3.0),
    ],
)
def test_a_run_is_added_to_a_soup_only_if_val_does_not_get_worse(values, chosen, cost) -> None:
    def distance(state):
        value = abs(state["w"].item())
        return float("inf") if np.isnan(value) else value

    found = greedy_soup([{"w": torch.tensor(value)} for value in values], distance)

    assert found[0] == chosen
    assert found[2] == pytest.approx(cost)


@pytest.mark.parametrize(
    ("monitor", "value"), [("val/mae", 3.0), ("val/bias", -2.0), ("val/abs_bias", 2.0), ("val/loss", 1.5)]
)
def test_the_monitor_of_a_soup_is_found_in_the_metrics_of_val(monitor, value) -> None:
    metrics = {"test/mae": 3.0, "test/bias": -2.0, "test/loss": 1.5}

    assert value_of(metrics, monitor) == value
