"""The TensorBoard runs with the means over the seeds of a sweep, read with TensorBoard's own reader."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from agebench.sweep.seed_means import write_seed_means

MakePoint = Callable[..., Path]


@pytest.fixture
def make_point(tmp_path: Path) -> MakePoint:
    """Return a function that writes a point of a sweep with one value of val/loss per epoch, 10 steps each."""

    def make(lr: float, seed: int, losses: list[float | str], *, fold: int | None = None, **results: object) -> Path:
        folder = tmp_path / f"lr-{lr}_seed-{seed}_fold-{fold}"
        (folder / ".hydra").mkdir(parents=True)
        config = {"seed": seed, "optim": {"lr": lr}, "data": {"split": {"k": 2, "fold": fold}}}
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([f"optim.lr={lr}", f"seed={seed}"]))
        protocol = "digits/random/class" if fold is None else f"digits/kfold2-{fold}/class"
        found = {"status": "completed", "seed": seed, "protocol": protocol, "data_sha": f"sha of fold {fold}"}
        found |= {"best": {"monitor": "val/loss", "value": min(x for x in losses if isinstance(x, float))}}
        found |= {"metrics": {"test/accuracy": 0.5 + seed / 8, "test/loss": 1.0 + seed, "test/ece": 0.25}, **results}
        (folder / "results.json").write_text(json.dumps(found))
        rows = [f"{epoch},{10 * (epoch + 1)},{lr},{loss}\n" for epoch, loss in enumerate(losses)]
        (folder / "metrics.csv").write_text("epoch,step,lr,val/loss\n" + "".join(rows))
        (folder / "events.out.tfevents.1.host").touch()
        return folder

    return make


def means_in(sweep: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return step and value of each scalar of each run with means."""
    found = {}
    for folder in sweep.glob("* (mean of *)"):
        events = EventAccumulator(str(folder)).Reload()
        tags = events.Tags()["scalars"]
        found[folder.name] = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    return found


def test_points_that_differ_only_in_the_seed_have_one_run_with_mean_and_band(make_point, tmp_path) -> None:
    curves = {0.5: [[4.0, 2.0], [3.0, 1.5], [8.0, 1.0]], 0.25: [[1.0, 0.5], [2.0, 0.25]]}
    for lr, of_seeds in curves.items():
        for seed, losses in enumerate(of_seeds):
            make_point(lr, seed, losses)

    write_seed_means(tmp_path)

    runs = means_in(tmp_path)
    assert runs.keys() == {"lr=0.5 (mean of 3)", "lr=0.25 (mean of 2)"}
    for lr, of_seeds in curves.items():
        found = runs[f"lr={lr} (mean of {len(of_seeds)})"]
        for epoch, values in enumerate(zip(*of_seeds, strict=True)):
            middle, spread = mean(values), stdev(values)
            for tag, expected in {
                "val/loss": middle,
                "x_std/val/loss_mean": middle,
                "x_std/val/loss_lower": middle - spread,
                "x_std/val/loss_upper": middle + spread,
                "train/lr": lr,
            }.items():
                assert found[tag][epoch] == (10 * epoch + 9, pytest.approx(expected, rel=1e-6))
        assert found["val-and-test/val_best_loss"] == [(20, pytest.approx(mean(min(losses) for losses in of_seeds)))]
        assert found["x_test/accuracy"] == [(20, mean(0.5 + seed / 8 for seed in range(len(of_seeds))))]
        assert found["val-and-test/test_loss"] == [(20, mean(1.0 + seed for seed in range(len(of_seeds))))]
        assert "x_test/ece" not in found  # only headline metrics are cards


def test_a_curve_ends_with_the_run_that_ended_first_and_skips_values_that_a_run_lacks(make_point, tmp_path) -> None:
    make_point(0.5, 0, [4.0, "nan", 2.0, 1.0, 0.5])
    make_point(0.5, 1, [2.0, 3.0, 1.0])
    make_point(0.5, 2, [9.0], status="interrupted")

    write_seed_means(tmp_path)

    (found,) = means_in(tmp_path).values()
    assert found["val/loss"] == [(9, 3.0), (29, 1.5)]
    assert found["x_test/accuracy"] == [(50, mean([0.5, 0.625]))]  # after the last step of the longer run
    assert found["val-and-test/val_best_loss"] == [(50, mean([0.5, 1.0]))]


def test_the_runs_of_an_earlier_call_are_replaced(make_point, tmp_path) -> None:
    for seed in (0, 1):
        make_point(0.5, seed, [1.0 + seed])
        make_point(0.25, seed, [1.0])
    write_seed_means(tmp_path)
    make_point(0.5, 2, [6.0])

    write_seed_means(tmp_path)

    runs = means_in(tmp_path)
    assert runs.keys() == {"lr=0.5 (mean of 3)", "lr=0.25 (mean of 2)"}
    assert runs["lr=0.5 (mean of 3)"]["val/loss"] == [(9, 3.0)]
    assert len(list((tmp_path / "lr=0.25 (mean of 2)").iterdir())) == 1


def test_folds_are_averaged_like_seeds(make_point, tmp_path) -> None:
    for lr in (0.5, 0.25):
        for fold in (0, 1):
            make_point(lr, 0, [lr + fold], fold=fold)

    write_seed_means(tmp_path)

    runs = means_in(tmp_path)
    assert {name: found["val/loss"] for name, found in runs.items()} == {
        "lr=0.5 (mean of 2)": [(9, 1.0)],
        "lr=0.25 (mean of 2)": [(9, 0.75)],
    }


def test_single_points_and_runs_without_tensorboard_have_no_means(make_point, tmp_path) -> None:
    make_point(0.5, 0, [1.0])
    for seed in (0, 1):
        (make_point(0.25, seed, [1.0]) / "events.out.tfevents.1.host").unlink()

    write_seed_means(tmp_path)

    assert means_in(tmp_path) == {}


def test_the_layout_has_a_margin_chart_for_each_curve(make_point, tmp_path) -> None:
    for seed in (0, 1):
        make_point(0.5, seed, [1.0])

    write_seed_means(tmp_path)

    (folder,) = tmp_path.glob("* (mean of 2)")
    events = EventAccumulator(str(folder)).Reload()
    (stored,) = events.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(stored.tensor_proto.string_val[0]).category
    (chart,) = category.chart  # train/lr and the final values have none
    (series,) = chart.margin.series
    assert chart.title == "val/loss"
    assert {series.value, series.lower, series.upper} <= set(events.Tags()["scalars"])
