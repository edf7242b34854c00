"""Baselines without an image are in the table and equal values computed manually."""

import csv
from types import SimpleNamespace

import pytest

from agebench.comparison.baselines import find_baselines, score_blind
from agebench.comparison.render import RENDERERS
from agebench.comparison.tables import compare
from agebench.runs.read import read_run

POINTS = [21.0] * 12


def write_split(folder, train) -> None:
    with (folder / "split.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(("name", "part", "identity", "target"))
        writer.writerows((f"t{i}.jpg", "train", "x", label) for i, label in enumerate(train))
        writer.writerow(("v.jpg", "val", "y", 29))


def test_the_blind_baselines_are_the_median_and_the_most_common_label_of_train(make_run) -> None:
    folder = make_run("one", points=POINTS)
    write_split(folder, [20, 20, 20, 22, 24, 29])

    found = score_blind(read_run(folder), "years")

    # Targets 20 to 29, 20 and 21; the median of train is 21, its most common label 20.
    assert found["test/mae"] == pytest.approx((1 + 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 1 + 0) / 12)
    assert found["test/accuracy"] == pytest.approx(2 / 12)


def test_a_baseline_is_in_the_table_without_a_rank(make_run) -> None:
    folder = make_run("one", points=POINTS)
    write_split(folder, [21])

    text = RENDERERS["md"](compare([read_run(folder)]))

    (line,) = [line for line in text.splitlines() if "always the median" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")][:2] == ["-", "always the median"]
    assert "3.17" in line


@pytest.mark.parametrize("train", [None, [], [99]])
def test_a_run_without_a_readable_split_has_no_baseline(make_run, train) -> None:
    folder = make_run("one", points=POINTS)
    if train is not None:
        write_split(folder, train)

    assert score_blind(read_run(folder), "years") == {}
    assert "always the median" not in RENDERERS["md"](compare([read_run(folder)]))


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("years", {"identity looked up": {"test/mae": 3.0}, "always the median": {"test/mae": 8.0}}),
        (
            "decades",
            {
                "identity looked up": {"test/mae": 3.0, "test/accuracy": 0.25},
                "always the median": {"test/mae": 8.0},
                "most common label": {"test/accuracy": 0.125},
            },
        ),
    ],
)
def test_an_identity_lookup_has_no_accuracy_of_exact_years(unit, expected) -> None:
    leak = {"lookup_mae": 3.0, "median_mae": 8.0, "lookup_accuracy": 0.25, "majority_accuracy": 0.125, "images": 4}
    group = SimpleNamespace(runs=[SimpleNamespace(results={"leak": leak})])

    baselines, _ = find_baselines([group], unit)

    assert {each.name: each.metrics for each in baselines} == expected
