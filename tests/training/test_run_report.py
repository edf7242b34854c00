"""Features equal an independent computation of the classifier's input."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from agebench import build
from agebench.training import run_report as features
from agebench.training.run_report import extract_features


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


def run_report(module, data, monkeypatch, tmp_path, *, most=1_000):
    given = {}
    monkeypatch.setattr(features, "write_report", lambda folder, **about: given.update(about, folder=folder))
    monkeypatch.setattr(features, "MAX_IMAGES", most)
    rows = np.arange(len(data.plan.split.test))
    predictions = SimpleNamespace(
        rows=rows, target=data.part("test").target.numpy(), posterior=np.full((len(rows), 10), 0.1), point=rows * 0.0
    )
    features.write_run_report(tmp_path, module, data, predictions=predictions, history=[], leak=None, writer=None)
    return given


def test_the_features_of_a_report_have_the_labels_of_their_images(module, monkeypatch, tmp_path) -> None:
    trained, data = module

    given = run_report(trained, data, monkeypatch, tmp_path, most=25)

    assert given["folder"] == tmp_path / "report"
    assert set(given["features"]) == {"train", "val", "test"}
    for part, (rows, labels) in given["features"].items():
        assert len(rows) == len(labels) == min(25, data.plan.counts[part])
        all_rows = extract_features(trained, data.part(part)[torch.arange(data.plan.counts[part])].images)
        for row, label in zip(rows, labels, strict=True):
            same = np.flatnonzero(np.isclose(all_rows, row, atol=1e-6).all(1))
            assert label in data.part(part).target.numpy()[same]
    assert given["outcome"].names.tolist() == data.plan.records.names[data.plan.split.test].tolist()


def test_val_is_skipped_if_it_equals_test(module, monkeypatch, tmp_path) -> None:
    trained, data = module
    object.__setattr__(data.plan.split, "val_is_test", True)

    given = run_report(trained, data, monkeypatch, tmp_path)

    assert set(given["features"]) == {"train", "test"}
