import csv
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.report.outcome import Outcome
from agebench.report.write import write_report

Draw = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
HISTORY = [
    {"epoch": e, "train/loss": 2 - e, "val/loss": 3 - e, "train/accuracy": 0.1 * e, "val/accuracy": 0.1}
    for e in range(2)
]


def read(path: Path) -> list[dict[str, str]]:
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))


@pytest.mark.filterwarnings("error")
def test_all_figures_and_tables_are_written(tmp_path: Path, ages_outcome: Outcome, draw_features: Draw) -> None:
    features = {"train": draw_features(40, 0), "val": draw_features(20, 1), "test": draw_features(20, 2)}

    files = write_report(
        tmp_path / "a" / "report", history=HISTORY, outcome=ages_outcome, features=features, title="cacd/official/age"
    )

    expected = {"curves.png", "curves.csv", "confusion.png", "confusion.csv", "most_confused.csv", "mistakes.csv"}
    expected |= {"error_by_age.png", "error_by_age.csv"}
    for part in features:
        expected |= {f"pca_{part}.png", f"tsne_{part}.png", f"features_{part}.npz", f"projection_{part}.csv"}
    assert sorted(path.name for path in files) == sorted(expected)
    assert {path.name for path in (tmp_path / "a" / "report").iterdir()} == expected
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.format == "PNG"
                assert min(image.size) >= 500
                assert max(image.size) <= 2_000
                assert np.ptp(np.asarray(image.convert("L"))) > 100


def test_features_are_saved_completely_and_projected_with_the_pca_of_train(
    tmp_path: Path, digits_outcome: Outcome, draw_features: Draw
) -> None:
    features = {"train": draw_features(40, 0), "val": draw_features(20, 1)}
    train, val = (np.asarray(features[part][0], dtype=np.float64) for part in ("train", "val"))
    axes = np.linalg.svd(train - train.mean(axis=0))[2]
    expected = (val - train.mean(axis=0)) @ axes[:2].T

    write_report(tmp_path, history=HISTORY, outcome=digits_outcome, features=features, title="t")

    with np.load(tmp_path / "features_val.npz") as saved:
        np.testing.assert_array_equal(saved["features"], features["val"][0])
        np.testing.assert_array_equal(saved["labels"], features["val"][1])
    rows = read(tmp_path / "projection_val.csv")
    assert list(rows[0]) == ["pca1", "pca2", "tsne1", "tsne2", "target"]
    coordinates = np.array([[row["pca1"], row["pca2"]] for row in rows], dtype=np.float64)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(expected), rtol=1e-4, atol=1e-5)
    assert [row["target"] for row in rows] == [str(label) for label in features["val"][1]]
    assert not (tmp_path / "error_by_age.png").exists()


def test_each_figure_is_added_to_tensorboard_once(tmp_path: Path, digits_outcome: Outcome, draw_features: Draw) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path / "run")
    files = write_report(
        tmp_path / "report",
        history=HISTORY,
        outcome=digits_outcome,
        features={"val": draw_features(20, 1)},
        title="t",
        writer=writer,
        step=90,
    )
    writer.close()

    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == sorted(f"x_report/{path.stem}" for path in files if path.suffix == ".png")
    for tag in events.Tags()["images"]:
        (event,) = events.Images(tag)
        with Image.open(tmp_path / "report" / f"{tag.removeprefix('report/')}.png") as image:
            assert (event.width, event.height, event.step) == (*image.size, 90)


def test_a_part_that_cannot_be_projected_is_skipped_and_the_reason_is_logged(
    tmp_path: Path, digits_outcome: Outcome, draw_features: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    features = {
        "train": (np.ones((30, 4)), np.zeros(30, dtype=np.int64)),
        "val": (np.zeros((0, 4)), np.zeros(0, dtype=np.int64)),
        "test": draw_features(20, 2),
    }

    files = {
        path.name for path in write_report(tmp_path, history=[], outcome=digits_outcome, features=features, title="")
    }

    assert {"features_train.npz", "features_val.npz", "features_test.npz", "pca_test.png", "tsne_test.png"} <= files
    assert not files & {"pca_train.png", "tsne_train.png", "pca_val.png", "tsne_val.png", "curves.png", "curves.csv"}
    assert "skipped pca_train and tsne_train: its features are identical for all images" in caplog.text
    assert "skipped pca_val and tsne_val: it has 0 images" in caplog.text
    assert "skipped curves: no epochs were recorded" in caplog.text


@pytest.mark.filterwarnings("error")
def test_the_report_of_a_diverged_model_is_written(tmp_path: Path, ages_outcome: Outcome, draw_features: Draw) -> None:
    rows, labels = draw_features(30, 0)
    rows[3:] = np.nan
    diverged = replace(
        ages_outcome, posterior=np.full_like(ages_outcome.posterior, np.nan), point=np.full(len(ages_outcome), np.nan)
    )
    history = [{"epoch": 0, "train/loss": float("nan"), "val/loss": float("inf"), "val/mae": float("nan")}]

    files = write_report(tmp_path, history=history, outcome=diverged, features={"train": (rows, labels)}, title="t")

    assert {"curves.png", "confusion.png", "error_by_age.png"} <= {path.name for path in files}
    assert not {"pca_train.png", "tsne_train.png"} & {path.name for path in files}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("images", [0, 1, 7])
def test_a_report_is_written_for_one_label_and_few_images(tmp_path: Path, images: int) -> None:
    target = np.zeros(images, dtype=np.int64)
    outcome = Outcome(target.astype(str), target, np.ones((images, 1)), target * 1.0, np.zeros(1), ("あ",), False, "")
    features = {"test": (np.random.default_rng(0).normal(size=(images, 3)), target)}

    files = write_report(tmp_path, history=[{"val/loss": 1.0}], outcome=outcome, features=features, title="t" * 400)

    names = {path.name for path in files}
    assert "curves.png" in names
    assert ("confusion.png" in names) == (images > 0)
    assert ("pca_test.png" in names) == (images >= 5)


def test_mismatched_shapes_raise_an_error(digits_outcome: Outcome) -> None:
    with pytest.raises(ValueError, match=r"need point of shape \(200,\), got \(3,\)"):
        replace(digits_outcome, point=np.zeros(3))
