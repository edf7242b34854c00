import csv
from pathlib import Path

import numpy as np
import pytest

from agebench.report.curves import draw_curves, epoch_numbers, write_curves
from agebench.report.style import plot_style

HISTORY = [
    {"epoch": 0, "train/loss": 2.0, "val/loss": 2.5, "val/mae": 9.0, "lr": 1e-3},
    {"epoch": 1, "train/loss": float("nan"), "val/mae": 8.0, "lr": 1e-4},
    {"epoch": 2, "train/loss": 1.0, "val/loss": 2.25, "val/mae": 7.5, "lr": 1e-4},
]


def test_the_table_numbers_epochs_from_one_and_distinguishes_missing_and_diverged_values(tmp_path: Path) -> None:
    path = write_curves(tmp_path / "curves.csv", HISTORY)

    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["train/loss"] for row in rows] == ["2.0", "nan", "1.0"]
    assert [row["val/loss"] for row in rows] == ["2.5", "", "2.25"]
    assert [float(row["lr"]) for row in rows] == [1e-3, 1e-4, 1e-4]


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [([0, 1, 2], [1, 2, 3]), ([1, 2, 3], [1, 2, 3]), ([5, 6, 7], [5, 6, 7]), ([None, 4, 5], [1, 2, 3])],
)
def test_epochs_recorded_from_zero_are_shifted(recorded: list[int | None], expected: list[int]) -> None:
    history = [{} if epoch is None else {"epoch": float(epoch)} for epoch in recorded]

    assert epoch_numbers(history).tolist() == expected


@pytest.mark.filterwarnings("error")
def test_axes_have_units_and_parts_differ_in_line_style_and_marker() -> None:
    with plot_style():
        figure = draw_curves(HISTORY, title="t", unit="years")

    assert figure is not None
    loss, mae = figure.axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert mae.get_ylabel() == "mean absolute error (years)"
    train, val = loss.lines
    assert (train.get_label(), val.get_label()) == ("train", "val")
    assert train.get_linestyle() != val.get_linestyle()
    assert train.get_marker() != val.get_marker()
    np.testing.assert_array_equal(np.asarray(train.get_xydata()), [[1, 2.0], [3, 1.0]])
    np.testing.assert_array_equal(np.asarray(val.get_xydata()), [[1, 2.5], [3, 2.25]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_a_single_epoch_is_drawn_even_if_it_diverged(tmp_path: Path, value: float) -> None:
    with plot_style():
        figure = draw_curves([{"train/loss": value, "val/accuracy": value}], title="t", unit="")
        assert figure is not None
        figure.savefig(tmp_path / "curves.png")

    assert len(figure.axes) == 2


def test_a_history_without_metrics_gives_no_figure() -> None:
    assert draw_curves([], title="t", unit="") is None
    assert draw_curves([{"epoch": 0, "lr": 0.1}], title="t", unit="") is None


BEST = {"epoch": 1, "monitor": "val/mae", "mode": "min", "value": 8.0, "tested": "best"}


def test_the_tested_epoch_is_marked_in_every_panel_and_the_best_value_in_that_of_the_monitor() -> None:
    with plot_style():
        figure = draw_curves(HISTORY, title="t", unit="years", best=BEST, planned_epochs=10)

    assert figure is not None
    loss, mae = figure.axes
    lines = {axes: {str(line.get_label()): line for line in axes.lines} for axes in (loss, mae)}
    assert [list(np.unique(lines[axes]["tested epoch"].get_xdata())) for axes in (loss, mae)] == [[2], [2]]
    assert np.asarray(lines[mae]["best val/mae"].get_xydata()).tolist() == [[2.0, 8.0]]
    assert "best val/mae" not in lines[loss]
    assert "trained for 3 epochs, stopped early (of 10 planned)" in figure.get_suptitle()
    assert "val/mae is best after epoch 2 (8)" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("best", "planned", "expected"),
    [
        (None, None, "trained for 3 epochs"),
        (BEST, 3, "trained for 3 epochs; val/mae is best after epoch 2 (8), which is tested"),
        ({**BEST, "tested": "last"}, -1, "trained for 3 epochs; the last epoch is tested"),
        ({**BEST, "epoch": None, "value": float("nan")}, 3, "trained for 3 epochs"),
    ],
)
def test_the_title_says_how_long_training_took_and_which_epoch_is_tested(best, planned, expected) -> None:
    with plot_style():
        figure = draw_curves(HISTORY, title="t", unit="years", best=best, planned_epochs=planned)

    assert figure is not None
    assert " ".join(figure.get_suptitle().split()) == f"t {expected}"


def test_all_panels_share_one_legend() -> None:
    with plot_style():
        figure = draw_curves(HISTORY, title="t", unit="years", best=BEST)

    assert figure is not None
    assert [axes.get_legend() for axes in figure.axes] == [None, None]
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["train", "val", "tested epoch", "best val/mae"]
