"""Paired differences against scipy and the pair alone; Holm against a worked example; files against results."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from agebench.comparison.groups import Group
from agebench.comparison.pairs import compare_with_best, holm, paired_differences
from agebench.comparison.predictions import NoPairsError, label_values, read_numbers
from agebench.metrics.bootstrap import paired_difference
from agebench.runs.read import read_run

TARGETS = np.array((20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21))
PEOPLE = np.array(list("aaabbbcccddd"))


def test_holm_on_a_worked_example() -> None:
    found = holm([0.01, 0.04, float("nan"), 0.03, 0.005])

    # Ascending 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, none below the one before.
    assert found[:2] + found[3:] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(found[2])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_that_share_resamples_are_those_of_each_pair_alone() -> None:
    rng = np.random.default_rng(0)
    people = rng.integers(0, 25, size=200)
    apart = [rng.normal(loc, 1, size=200) for loc in (0.0, 0.1, 3.0)]

    found = paired_differences(apart, people)

    for one, numbers in zip(found, apart, strict=True):
        alone = paired_difference(numbers, np.zeros(200), people)
        assert (one.value, one.p) == (pytest.approx(alone.value), alone.p)
        assert (one.low, one.high) == pytest.approx((alone.low, alone.high))
    assert found[2].p == pytest.approx(2 / 10_001)


def test_intervals_are_those_of_scipy_on_images() -> None:
    numbers = np.random.default_rng(1).normal(0.2, 1, size=150)

    found = paired_differences([numbers], None)[0]

    theirs = bootstrap((numbers,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2))
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_intervals_are_those_of_a_plain_loop_over_people() -> None:
    rng = np.random.default_rng(3)
    people, numbers = rng.integers(0, 12, size=90), rng.normal(size=90) + rng.normal(size=12)[rng.integers(0, 12, 90)]
    members = [np.flatnonzero(people == who) for who in np.unique(people)]
    drawn = [np.concatenate([members[i] for i in rng.integers(0, 12, size=12)]) for _ in range(10_000)]
    means = [numbers[rows].mean() for rows in drawn]

    found = paired_differences([numbers], people)[0]

    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.015)


def test_one_person_says_nothing_of_others() -> None:
    found = paired_differences([np.arange(5.0)], np.zeros(5))[0]

    assert found.value == 2
    assert np.isnan([found.low, found.high, found.p]).all()


def test_a_group_is_the_mean_of_its_seeds_on_each_image(make_run) -> None:
    rng = np.random.default_rng(4)
    seeds = [TARGETS + rng.normal(0, 2, size=12).round(2) for _ in range(3)]
    best = TARGETS + rng.normal(0, 1, size=12).round(2)
    groups = [
        Group((read_run(make_run("best", points=best, head="coral")),), {}),
        Group(tuple(read_run(make_run(f"s{i}", points=p, seed=i)) for i, p in enumerate(seeds)), {}),
    ]

    found = compare_with_best(groups, 0, metric="test/mae", unit="years")

    assert found is not None
    by_hand = np.mean([np.abs(p - TARGETS) for p in seeds], axis=0) - np.abs(best - TARGETS)
    expected = paired_difference(by_hand, np.zeros(12), PEOPLE)
    assert found.differences[1].value == pytest.approx(by_hand.mean())
    assert (found.differences[1].low, found.differences[1].high) == pytest.approx((expected.low, expected.high))
    assert (found.over, found.drawn, found.resamples) == ("people", 4, 10_000)
    assert list(found.differences) == [1]


def test_numbers_of_each_metric_by_hand(make_run) -> None:
    points = [20, 27, 22.4, 29, 24, 25, 26, 27, 28, 29, 20, 21]  # off by 6 twice; 22.4 is taken for 22
    run = read_run(make_run("r", points=points))
    wrong = np.isin(np.arange(12), (1, 3))
    run.results["metrics"]["test/nll"] = float(-np.log(np.where(wrong, 0.05, 0.55)).mean())

    assert read_numbers(run, "test/accuracy", "years").numbers.tolist() == (~wrong).astype(float).tolist()
    assert read_numbers(run, "test/cs5", "years").numbers.tolist() == (~wrong).astype(float).tolist()
    assert read_numbers(run, "test/nll", "years").numbers == pytest.approx(-np.log(np.where(wrong, 0.05, 0.55)))
    assert read_numbers(run, "test/mae", "years").numbers == pytest.approx([0, 6, 0.4, 6] + [0] * 8)
    assert read_numbers(run, "test/mae", "years").people == PEOPLE.tolist()


def test_classes_are_right_if_their_name_is(make_run) -> None:
    folder = make_run("r", metrics={"test/accuracy": 0.5, "test/nll": 0.5})
    header = 'name,identity,target,point,"p(a, b)",p(c),protocol'
    rows = ['"x, 1",,"a, b","a, b",0.9,0.1,d/o/class', 'y,,c,"a, b",0.6,0.4,d/o/class']
    (folder / "predictions.csv").write_text("\n".join([header, *rows]) + "\n")

    found = read_numbers(read_run(folder), "test/accuracy", "")

    assert (found.names, found.numbers.tolist()) == (["x, 1", "y"], [1.0, 0.0])
    by_hand = -np.log([0.9, 0.4])
    told = (folder / "results.json").read_text()
    (folder / "results.json").write_text(told.replace('"test/nll": 0.5', f'"test/nll": {by_hand.mean()}'))
    assert read_numbers(read_run(folder), "test/nll", "").numbers == pytest.approx(by_hand)


def test_rows_in_another_order_are_put_right(make_run) -> None:
    groups = [
        Group((read_run(make_run("a", points=TARGETS)),), {}),
        Group((read_run(make_run("b", points=TARGETS + np.arange(12) / 4, head="coral")),), {}),
    ]
    path = groups[1].runs[0].folder / "predictions.csv"
    header, *rows = path.read_text().splitlines()
    before = compare_with_best(groups, 0, metric="test/mae", unit="years")

    path.write_text("\n".join([header, *reversed(rows)]) + "\n")
    after = compare_with_best(groups, 0, metric="test/mae", unit="years")

    assert before is not None
    assert after is not None
    assert after.differences == before.differences


def reverse_rows(folder: Path) -> None:
    path = folder / "predictions.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]) + "\n")


def test_two_runs_are_paired_by_image_name_and_not_by_row_number(make_run) -> None:
    error = np.arange(12) % 5 + 1.0
    groups = [
        Group((read_run(make_run("best", points=TARGETS + error)),), {}),
        Group((read_run(make_run("other", points=TARGETS + error + 0.5, head="coral")),), {}),
    ]
    reverse_rows(groups[1].runs[0].folder)

    found = compare_with_best(groups, 0, metric="test/mae", unit="years")

    # Every image differs by exactly 0.5, so the interval has no width. Rows paired by number would give it one.
    assert found is not None
    difference = found.differences[1]
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.5, 0.5, 0.5))


def test_seeds_of_a_group_are_averaged_by_image_name_and_not_by_row_number(make_run) -> None:
    error = np.arange(12) % 5 + 1.0
    seeds = [make_run(f"s{seed}", points=TARGETS + error + 0.5, seed=seed, head="coral") for seed in range(2)]
    groups = [
        Group((read_run(make_run("best", points=TARGETS + error)),), {}),
        Group(tuple(read_run(folder) for folder in seeds), {}),
    ]
    reverse_rows(seeds[1])

    found = compare_with_best(groups, 0, metric="test/mae", unit="years")

    assert found is not None
    difference = found.differences[1]
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.5, 0.5, 0.5))


def write_decades(folder: Path, points: Sequence[float]) -> None:
    """Write the predictions of four images of people in their teens, twenties, forties and fifties."""
    decades = ["10s", "20s", "30s", "40s", "50s"]
    lines = ["name,identity,target,point," + ",".join(f"p({decade})" for decade in decades)]
    for i, (target, point) in enumerate(zip(("10s", "20s", "40s", "50s"), points, strict=True)):
        lines.append(f"{i}.jpg,,{target},{point},0.2,0.2,0.2,0.2,0.2")
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")


def test_differences_between_decades_are_counted_in_decades(make_run) -> None:
    # The true decades are 1, 2, 4 and 5.
    best = make_run("best", metrics={"test/mae": 0.125, "test/within_1": 1.0})
    other = make_run("other", head="coral", metrics={"test/mae": 1.0, "test/within_1": 0.75})
    write_decades(best, (1, 2, 4.5, 5))
    write_decades(other, (2.5, 2, 4.5, 3))
    groups = [Group((read_run(folder),), {}) for folder in (best, other)]

    mae = compare_with_best(groups, 0, metric="test/mae", unit="decades")
    within = compare_with_best(groups, 0, metric="test/within_1", unit="decades")

    assert read_numbers(groups[1].runs[0], "test/mae", "decades").numbers.tolist() == [1.5, 0, 0.5, 2]
    assert mae is not None
    assert (mae.differences[1].value, mae.over, mae.drawn) == (pytest.approx(0.875), "images", 4)
    assert within is not None
    assert within.differences[1].value == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("labels", "unit", "values"),
    [
        (["18", "19", "21"], "years", [18, 19, 21]),
        (["10s", "20s", "40s"], "decades", [1, 2, 4]),
        (["under 18", "18-30", "over 30"], "bins", [0, 1, 2]),
        (["cat", "dog"], "", [0, 1]),
    ],
)
def test_labels_are_worth_what_they_say_in_the_unit_of_the_target(labels, unit, values) -> None:
    assert label_values(labels, unit) == values


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: None, "has no predictions.csv"),
        (lambda text: "", "cannot be read"),
        (lambda text: text[: len(text) // 2], "r "),
        (lambda text: text.replace(",20,", ",abc,"), "cannot be read"),
        (lambda text: text.replace("0.jpg,a,20,24", "0.jpg,a,20,29"), "does not match its results.json"),
        (lambda text: "\n".join(text.splitlines()[:-2]), "does not match its results.json"),
    ],
)
def test_a_file_that_is_not_the_runs_own_is_told_and_not_used(make_run, damage, says) -> None:
    folder = make_run("r", points=np.append(TARGETS[:10] + 4, [20, 21]))
    path = folder / "predictions.csv"
    text = damage(path.read_text())
    path.unlink()
    if text is not None:
        path.write_text(text)

    with pytest.raises(NoPairsError, match=says):
        read_numbers(read_run(folder), "test/mae", "years")


def test_other_images_are_told(make_run) -> None:
    groups = [
        Group((read_run(make_run("a", points=TARGETS)),), {}),
        Group((read_run(make_run("b", points=TARGETS + 1, head="coral")),), {}),
    ]
    path = groups[1].runs[0].folder / "predictions.csv"
    path.write_text(path.read_text().replace("0.jpg", "zero.jpg", 1))

    found = compare_with_best(groups, 0, metric="test/mae", unit="years")

    assert found is not None
    assert found.differences == {}
    assert "different images" in found.notes[0]
