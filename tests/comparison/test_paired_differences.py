"""Paired differences, Holm's correction, and the values of single images from predictions.csv."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, t

from agebench.comparison.groups import Group
from agebench.comparison.paired_differences import compare_with_best, holm, paired_differences
from agebench.comparison.predictions_csv import NoPairsError, read_numbers
from agebench.comparison.tables import compare
from agebench.runs.predictions_csv import label_values
from agebench.runs.read import find_runs, read_run

TARGETS = np.array((20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21))
PEOPLE = np.array(list("aaabbbcccddd"))


def smallest_p(groups: float) -> float:
    """Return the p-value if no resample has the other sign: Student's for the normal quantile of 2 / 10,001."""
    return 2 * t.sf(norm.isf(1 / 10_001) * math.sqrt((groups - 1) / groups), groups - 1)


def test_holm_for_values_computed_manually() -> None:
    found = holm([0.01, 0.04, float("nan"), 0.03, 0.005])

    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, then the cumulative maximum.
    assert found[:2] + found[3:] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(found[2])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_difference_of_a_pair_does_not_depend_on_the_other_pairs() -> None:
    rng = np.random.default_rng(0)
    people = rng.integers(0, 25, size=200)
    differences = [rng.normal(loc, 1, size=200) for loc in (0.0, 0.1, 3.0)]

    found = paired_differences(differences, people)

    for one, numbers in zip(found, differences, strict=True):
        (alone,) = paired_differences([numbers], people)
        assert (one.value, one.p) == (pytest.approx(alone.value), alone.p)
        assert (one.low, one.high) == pytest.approx((alone.low, alone.high))
    assert found[2].p == pytest.approx(smallest_p(200**2 / (np.bincount(people) ** 2).sum()))


def test_intervals_over_images_equal_those_of_scipy() -> None:
    numbers = np.random.default_rng(1).normal(0.2, 1, size=150)

    found = paired_differences([numbers], None)[0]

    theirs = bootstrap((numbers,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2))
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_intervals_over_people_equal_those_of_a_simple_loop() -> None:
    rng = np.random.default_rng(3)
    people, numbers = rng.integers(0, 12, size=90), rng.normal(size=90) + rng.normal(size=12)[rng.integers(0, 12, 90)]
    members = [np.flatnonzero(people == who) for who in np.unique(people)]
    drawn = [np.concatenate([members[i] for i in rng.integers(0, 12, size=12)]) for _ in range(10_000)]
    means = [numbers[rows].mean() for rows in drawn]

    found = paired_differences([numbers], people)[0]

    effective = 90**2 / sum(len(rows) ** 2 for rows in members)
    tail = norm.sf(t.ppf(0.975, effective - 1) * math.sqrt(effective / (effective - 1)))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (tail, 1 - tail))), abs=0.025)


def test_a_single_person_has_no_interval() -> None:
    found = paired_differences([np.arange(5.0)], np.zeros(5))[0]

    assert found.value == 2
    assert np.isnan([found.low, found.high, found.p]).all()


def test_the_difference_of_independent_images_is_close_to_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    common, noise = 10 * rng.random(2_000), rng.normal(size=2_000)
    noise -= noise.mean()
    error = noise.std() / math.sqrt(2_000)
    ours, theirs = common + noise + 2.2 * error, common  # an error that both share does not change the difference

    found = paired_differences([ours - theirs], None)[0]

    assert found.value == pytest.approx(2.2 * error)
    assert found.low == pytest.approx((2.2 - 1.96) * error, abs=0.08 * error)
    assert found.high == pytest.approx((2.2 + 1.96) * error, abs=0.08 * error)
    assert found.p == pytest.approx(math.erfc(2.2 / math.sqrt(2)), abs=0.006)  # 0.028


def test_the_p_value_depends_on_the_number_of_people_and_not_of_images() -> None:
    people = np.random.default_rng(1).normal(size=200)
    people += 1.5 * people.std() / math.sqrt(200) - people.mean()
    groups = np.repeat(np.arange(200), 5)

    by_person = paired_differences([people[groups]], groups)[0]
    by_image = paired_differences([people[groups]], None)[0]

    assert by_person.p == pytest.approx(math.erfc(1.5 / math.sqrt(2)), abs=0.02)  # 0.134
    assert by_image.p < 0.01


def test_exchanging_the_models_changes_only_the_sign() -> None:
    numbers = np.random.default_rng(2).normal(size=100)

    one, other = paired_differences([numbers, -numbers], None)

    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p == other.p


def test_the_p_value_is_below_0_05_if_and_only_if_the_interval_does_not_contain_zero() -> None:
    base = np.random.default_rng(3).normal(size=80)

    found = paired_differences([base + shift for shift in np.linspace(-0.5, 0.5, 21)], None)

    assert {each.p < 0.05 for each in found} == {True, False}
    for each in found:
        assert (each.p < 0.05) == (each.low > 0 or each.high < 0) or each.p == pytest.approx(0.05, abs=0.004)


def test_equal_models_have_p_1_and_no_p_value_is_zero() -> None:
    same, different = paired_differences([np.zeros(30), np.full(30, 4.0)], None)

    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert (different.value, different.low, different.high) == (4, 4, 4)
    assert different.p == pytest.approx(smallest_p(30))


def test_a_difference_that_is_not_finite_has_no_interval_and_leaves_other_pairs_unchanged() -> None:
    diverged, finite = paired_differences([np.array([1, np.nan]), np.ones(2)], None)

    assert np.isnan([diverged.value, diverged.low, diverged.high, diverged.p]).all()
    assert (finite.value, finite.low, finite.high) == (1, 1, 1)


def test_images_of_unknown_identity_are_resampled_individually() -> None:
    numbers = np.random.default_rng(0).normal(size=40)
    unknown, distinct = np.full(40, ""), np.arange(40)

    found = [paired_differences([numbers], groups)[0] for groups in (unknown, distinct)]

    assert found[0] == found[1]
    assert found[0].low < numbers.mean() < found[0].high


def test_the_value_of_a_group_on_an_image_is_the_mean_over_its_seeds(make_run) -> None:
    rng = np.random.default_rng(4)
    seeds = [TARGETS + rng.normal(0, 2, size=12).round(2) for _ in range(3)]
    best = TARGETS + rng.normal(0, 1, size=12).round(2)
    groups = [
        Group((read_run(make_run("best", points=best, head="coral")),), {}),
        Group(tuple(read_run(make_run(f"s{i}", points=p, seed=i)) for i, p in enumerate(seeds)), {}),
    ]

    found = compare_with_best(groups, 0, metric="test/mae", unit="years")

    assert found is not None
    differences = np.mean([np.abs(p - TARGETS) for p in seeds], axis=0) - np.abs(best - TARGETS)
    (expected,) = paired_differences([differences], PEOPLE)
    assert found.differences[1].value == pytest.approx(differences.mean())
    assert (found.differences[1].low, found.differences[1].high) == pytest.approx((expected.low, expected.high))
    assert (found.over, found.drawn, found.resamples) == ("people", 4, 10_000)
    assert found.least == pytest.approx(smallest_p(4))
    assert list(found.differences) == [1]


def test_the_values_of_each_metric_computed_manually(make_run) -> None:
    points = [
        20,
        27,
        22.4,
        29,
        24,
        25,
        26,
        27,
        28,
        29,
        20,
        21,
    ]  # two errors of 6; the label of 22.4 is 22
    run = read_run(make_run("r", points=points))
    wrong = np.isin(np.arange(12), (1, 3))
    run.results["metrics"]["test/nll"] = float(-np.log(np.where(wrong, 0.05, 0.55)).mean())

    assert read_numbers(run, "test/accuracy", "years").numbers.tolist() == (~wrong).astype(float).tolist()
    assert read_numbers(run, "test/cs5", "years").numbers.tolist() == (~wrong).astype(float).tolist()
    assert read_numbers(run, "test/nll", "years").numbers == pytest.approx(-np.log(np.where(wrong, 0.05, 0.55)))
    assert read_numbers(run, "test/mae", "years").numbers == pytest.approx([0, 6, 0.4, 6] + [0] * 8)
    assert read_numbers(run, "test/mae", "years").people == PEOPLE.tolist()


def test_a_class_is_correct_if_its_name_is_the_target(make_run) -> None:
    folder = make_run("r", metrics={"test/accuracy": 0.5, "test/nll": 0.5})
    header = 'name,identity,target,point,"p(a, b)",p(c),protocol'
    rows = ['"x, 1",,"a, b","a, b",0.9,0.1,d/o/class', 'y,,c,"a, b",0.6,0.4,d/o/class']
    (folder / "predictions.csv").write_text("\n".join([header, *rows]) + "\n")

    found = read_numbers(read_run(folder), "test/accuracy", "")

    assert (found.names, found.numbers.tolist()) == (["x, 1", "y"], [1.0, 0.0])
    expected = -np.log([0.9, 0.4])
    results = (folder / "results.json").read_text()
    (folder / "results.json").write_text(results.replace('"test/nll": 0.5', f'"test/nll": {expected.mean()}'))
    assert read_numbers(read_run(folder), "test/nll", "").numbers == pytest.approx(expected)


def test_the_order_of_rows_does_not_matter(make_run) -> None:
    groups = [
        Group((read_run(make_run("a", points=TARGETS)),), {}),
        Group((read_run(make_run("b", points=TARGETS + np.arange(12) / 4, head="coral")),), {}),
    ]
    before = compare_with_best(groups, 0, metric="test/mae", unit="years")

    reverse_rows(groups[1].runs[0].folder)
    after = compare_with_best(groups, 0, metric="test/mae", unit="years")

    assert before is not None
    assert after is not None
    assert after.differences == before.differences


def reverse_rows(folder: Path) -> None:
    path = folder / "predictions.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]) + "\n")


def test_two_runs_are_paired_by_image_name(make_run) -> None:
    error = np.arange(12) % 5 + 1.0
    groups = [
        Group((read_run(make_run("best", points=TARGETS + error)),), {}),
        Group((read_run(make_run("other", points=TARGETS + error + 0.5, head="coral")),), {}),
    ]
    reverse_rows(groups[1].runs[0].folder)

    found = compare_with_best(groups, 0, metric="test/mae", unit="years")

    # Every image differs by exactly 0.5, so the interval has no width. Pairing by row number would give it a width.
    assert found is not None
    difference = found.differences[1]
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_seeds_of_a_group_are_averaged_by_image_name(make_run) -> None:
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
    """Write the predictions for four images of the decades 10s, 20s, 40s and 50s."""
    decades = ["10s", "20s", "30s", "40s", "50s"]
    lines = ["name,identity,target,point," + ",".join(f"p({decade})" for decade in decades)]
    for i, (target, point) in enumerate(zip(("10s", "20s", "40s", "50s"), points, strict=True)):
        lines.append(f"{i}.jpg,,{target},{point},0.2,0.2,0.2,0.2,0.2")
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")


def test_the_unit_of_differences_for_a_target_of_decades_is_decades(make_run) -> None:
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
def test_label_values_are_in_the_unit_of_the_target(labels, unit, values) -> None:
    assert label_values(labels, unit) == values


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: None, "has no predictions.csv"),
        (lambda text: "", "cannot be read"),
        (lambda text: text[: len(text) // 2], "r "),
        (lambda text: text.replace(",20,", ",abc,"), "cannot be read"),
        (lambda text: text.replace("0.jpg,a,20,24", "0.jpg,a,20,29"), "does not match its results.json"),
        (lambda text: "\n".join(text.splitlines()[:-2]), "does not match its results.json"),
    ],
)
def test_a_missing_damaged_or_different_file_raises_an_error(make_run, damage, message) -> None:
    folder = make_run("r", points=np.append(TARGETS[:10] + 4, [20, 21]))
    path = folder / "predictions.csv"
    text = damage(path.read_text())
    path.unlink()
    if text is not None:
        path.write_text(text)

    with pytest.raises(NoPairsError, match=message):
        read_numbers(read_run(folder), "test/mae", "years")


@pytest.mark.parametrize(("seeds", "is_noted"), [(2, True), (3, False)])
def test_few_seeds_have_a_note_that_a_difference_is_one_of_trained_models(make_run, tmp_path, seeds, is_noted) -> None:
    for seed in range(seeds):
        make_run(f"a{seed}", points=TARGETS + 1, seed=seed)
        make_run(f"b{seed}", points=TARGETS + 2, seed=seed, head="coral")

    (table,) = compare(find_runs([tmp_path])).tables

    sentence = "n < 3: intervals and p-values describe these trained models on other people of the same kind"
    assert any(note.startswith(sentence) for note in table.notes) == is_noted


def test_different_images_give_a_note_and_no_difference(make_run) -> None:
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
