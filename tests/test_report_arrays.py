"""The arrays of a report: features equal an independent computation of the classifier's input."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agebench import build, report_arrays
from agebench.report.report_images import ReportImages
from agebench.report_arrays import FeatureRecorder, extract_features, write_arrays


@pytest.fixture
def module(compose_config):
    config = compose_config("data.limit=40", "model.hidden=[12]", "data.normalise=half")
    data = build.build_data(config)
    return build.build_module(config, data), data


def test_features_are_the_input_of_the_classifier(module) -> None:
    trained, data = module
    images = data.part("train")[torch.arange(30)].images
    layers = list(trained.model.children())
    backbone = nn.Sequential(*layers[:-1]).eval()
    assert isinstance(layers[-1], nn.Linear)
    with torch.no_grad():
        expected = backbone((images.float() / 255 - 0.5) / 0.5).numpy()

    found = extract_features(trained, images, batch_size=7)

    assert found.shape == (30, 12)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_extract_features_removes_its_hook(module) -> None:
    trained, data = module

    extract_features(trained, data.part("train")[torch.arange(3)].images)

    assert not any(layer._forward_pre_hooks for layer in trained.modules())


def outcome_for(data: Any) -> Any:
    """Return predictions of all test images, which take each image for its true label."""
    target = data.plan.target.labels[data.plan.split.test]
    posterior = np.eye(10)[target] * 0.9 + 0.01
    return SimpleNamespace(rows=np.arange(len(target)), target=target, posterior=posterior, point=target * 1.0)


def test_the_features_of_the_test_are_recorded_without_a_forward_pass_of_train(module, tmp_path) -> None:
    trained, data = module
    chosen = np.array([0, 3, 4, 16, 30, 39])
    seen: list[int] = []
    hook = trained.model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))

    with FeatureRecorder(trained, chosen) as recorder:
        for batch in data.part("test")[torch.arange(40)].images.split(16):
            trained.eval()(batch)
    predictions = outcome_for(data)
    recorded = recorder.features(predictions)
    write_arrays(tmp_path, trained, data, predictions=predictions, recorded=recorded)
    hook.remove()

    assert sum(seen) == 40  # the test itself, and nothing after it
    assert recorded is not None
    rows, features = recorded
    assert rows.tolist() == chosen.tolist()
    images = data.part("test")[torch.from_numpy(chosen)].images
    np.testing.assert_allclose(features, extract_features(trained, images), atol=1e-6)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"images.npz", "projector"}


def test_a_test_that_saw_other_images_has_no_features(module) -> None:
    trained, data = module

    with FeatureRecorder(trained, np.arange(5)) as recorder:
        trained.eval()(data.part("test")[torch.arange(20)].images)

    assert recorder.features(outcome_for(data)) is None


@pytest.mark.parametrize("val_is_test", [False, True])
def test_the_features_of_a_full_report_have_the_labels_of_their_images(
    module, monkeypatch, tmp_path, val_is_test
) -> None:
    trained, data = module
    object.__setattr__(data.plan.split, "val_is_test", val_is_test)
    monkeypatch.setattr(report_arrays, "MAX_IMAGES", 25)

    parts = ("train", "val", "test")
    write_arrays(tmp_path, trained, data, predictions=outcome_for(data), recorded=None, parts=parts)

    written = {path.stem.removeprefix("features_"): path for path in (tmp_path / "report").glob("features_*")}
    assert set(written) == ({"train", "test"} if val_is_test else set(parts))
    for part, path in written.items():
        stored = np.load(path)
        assert len(stored["features"]) == min(25, data.plan.counts[part])
        pixels = data.part(part)[torch.from_numpy(stored["rows"])]
        assert stored["labels"].tolist() == pixels.target.tolist()
        np.testing.assert_allclose(stored["features"], extract_features(trained, pixels.images), atol=1e-6)


def test_the_images_of_a_report_are_those_of_the_data_and_small(compose_config, tmp_path) -> None:
    lines = ("data.limit=30", "model.hidden=[12]", "data.normalise=half", "data.image_size=120", "augment=digits")
    config = compose_config(*lines)
    data = build.build_data(config)
    trained = build.build_module(config, data)

    write_arrays(tmp_path, trained, data, predictions=outcome_for(data), recorded=None)

    images = ReportImages.load(tmp_path / "report" / "images.npz")
    assert images.images.shape[1:] == images.before.shape[1:] == images.after.shape[1:] == (1, 112, 112)
    assert len(images.before) == len(images.after) == len(images.sample_target) == 12
    assert not np.array_equal(images.before, images.after)
    original = data.part("test")[torch.from_numpy(images.rows)].images.float().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(images.images.mean((1, 2, 3)), original, atol=1)
