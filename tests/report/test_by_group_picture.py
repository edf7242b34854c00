"""The figure of metrics by group."""

from pathlib import Path

import numpy as np
from PIL import Image

from agebench.report.by_group import MAX_ROWS, Panel, draw_groups, write_groups

HEADER = ["by", "group", "images", "people", "mae", "mae_low", "mae_high", "bias", "bias_low", "bias_high", "note"]
BODY = [
    ["sex", "f", 60, 40, "5", "4", "6.5", "-1", "-2", "0.5", ""],
    ["sex", "m", 20, 20, "6", "", "", "2", "", "", "fewer than 30 people"],
    ["sex x race", "f x $a_b$", 30, 30, "5.5", "4", "6", "", "", "", ""],
    ["sex x race", "m x 人", 9, 9, "", "", "", "", "", "", "fewer than 30 people"],
]
PANELS = {"mae": Panel("mae (years)", 5.25, ["sex: 1.0 [-1.0, 3.0], p = 0.3"]), "bias": Panel("bias (years)", 0.1, [])}


def rows_of(body: list[list[object]]) -> list[dict[str, str]]:
    return [dict(zip(HEADER, map(str, row), strict=True)) for row in body]


def test_each_group_has_a_marker_with_its_interval_and_small_groups_an_empty_one() -> None:
    figure = draw_groups(rows_of(BODY[:3]), PANELS, title="demo")

    mae, bias = figure.axes
    lines = [(line.get_xdata()[0], line.get_xdata()[-1], line.get_markerfacecolor()) for line in mae.get_lines()]
    assert [ends[:2] for ends in lines] == [(5.25, 5.25), (4, 6.5), (5, 5), (6, 6), (4, 6), (5.5, 5.5)]
    assert [lines[i][2] == "white" for i in (2, 3, 5)] == [False, True, False]
    assert [text.get_text() for text in mae.get_yticklabels()] == ["f (40)", "m (20)", "f x $a_b$ (30)"]
    assert mae.get_title().endswith("sex: 1.0 [-1.0, 3.0], p = 0.3")
    assert [axes.get_xlabel() for axes in (mae, bias)] == ["mae (years)", "bias (years)"]
    assert len(bias.get_lines()) == 4  # all images, an interval, two markers


def test_the_figure_is_written_without_groups_that_have_no_metrics(tmp_path: Path) -> None:
    path = write_groups(tmp_path / "report", (HEADER, BODY), PANELS, title="demo")

    assert path == tmp_path / "report" / "by_group.png"
    with Image.open(path) as image:
        assert np.asarray(image.convert("L")).min() < 100
    assert write_groups(tmp_path / "none", (HEADER, BODY[3:]), PANELS, title="demo") is None
    assert not (tmp_path / "none").exists()


def test_a_figure_of_very_many_groups_says_how_many_are_missing() -> None:
    body = [["race", f"r{i}", 30, 30, "5", "4", "6", "0", "-1", "1", ""] for i in range(MAX_ROWS + 3)]

    figure = draw_groups(rows_of(body), PANELS, title="demo")

    assert len(figure.axes[0].get_yticks()) == MAX_ROWS
    assert figure.get_supxlabel() == "3 more groups are in by_group.csv"
