"""The gap between groups of test images for each row, the interval of a mean over seeds, and columns of choice."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_ind

from agebench.comparison import render
from agebench.comparison.by_group import by_group
from agebench.comparison.caption import caption
from agebench.comparison.gaps import with_gaps
from agebench.comparison.tables import Comparison, compare
from agebench.errors import UserError
from agebench.files import write_csv
from agebench.runs.read import find_runs

IMAGES = 120
TARGETS = [20 + i % 10 for i in range(IMAGES)]
SEX = np.array(["f" if i % 5 < 3 else "m" for i in range(IMAGES)])
HAND = np.array(["l" if i < 20 else "r" for i in range(IMAGES)])


def errors(seed: int) -> np.ndarray:
    """Return absolute errors of two seeds, which are 1 year larger for men."""
    return (np.random.default_rng(seed).gamma(2.0, 1.0, IMAGES) + (SEX == "m")).round(4)


@pytest.fixture
def folder(make_run, tmp_path: Path) -> Path:
    """Return a folder with two seeds of one head and one run of another, all on the same images of unknown people."""
    common = {"targets": TARGETS, "people": [""] * IMAGES, "bootstrap": {"over": "image", "groups": IMAGES}}
    for seed in (0, 1):
        run = make_run(f"runs/a{seed}", points=np.array(TARGETS) + errors(seed), seed=seed, **common)
    make_run("runs/b", points=np.array(TARGETS) + errors(2) + 3, head="coral", **common)
    rows = zip([f"{i}.jpg" for i in range(IMAGES)], SEX, HAND, strict=True)
    write_csv(run / "groups.csv", ("name", "sex", "hand"), rows)
    return tmp_path / "runs"


def test_the_interval_of_several_seeds_is_that_of_the_mean_error_of_each_image(folder: Path) -> None:
    (table,) = compare(find_runs([folder])).tables

    mean = (errors(0) + errors(1)) / 2
    half = student.ppf(0.975, IMAGES - 1) * mean.std(ddof=1) / IMAGES**0.5
    assert table.rows[0].interval == pytest.approx((mean.mean() - half, mean.mean() + half), abs=0.1 * half)
    assert table.rows[1].interval == (0.5, 4.5)  # of results.json


def test_a_single_group_of_seeds_has_an_interval_too(folder: Path) -> None:
    (table,) = compare(find_runs([folder / "a0", folder / "a1"])).tables

    low, high = table.rows[0].interval or (0, 0)
    assert low < table.rows[0].group.mean("test/mae") < high
    assert table.rows[0].difference is None


def test_the_gap_of_several_seeds_is_that_of_the_mean_error_of_each_image(folder: Path) -> None:
    compared = with_gaps(compare(find_runs([folder])), ["sex"])

    mean = (errors(0) + errors(1)) / 2
    welch = ttest_ind(mean[SEX == "m"], mean[SEX == "f"], equal_var=False)
    low, high = welch.confidence_interval()
    gap = compared.tables[0].rows[0].gaps["test/mae", "sex"]
    assert gap is not None
    assert (gap.worst, gap.best) == ("m", "f")
    assert gap.value == pytest.approx(mean[SEX == "m"].mean() - mean[SEX == "f"].mean())
    assert [gap.low, gap.high] == pytest.approx([low, high], abs=0.06 * (high - low))


def test_people_are_counted_and_not_their_images(make_run, tmp_path: Path) -> None:
    people = [f"{sex}{i // 6}" for i, sex in enumerate(SEX)]  # 20 women and 20 men
    run = make_run("runs/a", points=np.array(TARGETS) + errors(0), targets=TARGETS, people=people)
    write_csv(run / "groups.csv", ("name", "sex"), zip([f"{i}.jpg" for i in range(IMAGES)], SEX, strict=True))

    (table,) = with_gaps(compare(find_runs([tmp_path])), ["sex"]).tables

    assert table.rows[0].gaps["test/mae", "sex"] is None
    assert "no gap by sex: fewer than two groups have 30 people or images" in table.notes


def test_every_format_shows_the_gap(folder: Path) -> None:
    compared = with_gaps(compare(find_runs([folder])), ["sex", "hand"])

    gap = compared.tables[0].rows[0].gaps["test/mae", "sex"]
    markdown, rows = render.to_markdown(compared), list(csv.DictReader(io.StringIO(render.to_csv(compared))))
    found = json.loads(render.to_json(compared))["tables"][0]["groups"][0]["gaps"]
    assert gap is not None
    text = f"{gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}] (m, f)"
    assert text in markdown
    assert text in render.RENDERERS["html"](compared)
    assert text in render.RENDERERS["latex"](compared)
    assert (rows[0]["gap_sex"], rows[0]["gap_sex_worst"]) == (str(gap.value), "m")
    assert "age-standardised gap by sex [95% CI] (worst, best)" in markdown
    means = {sex: ((errors(0) + errors(1)) / 2)[sex == SEX].mean() for sex in ("f", "m")}
    assert found["sex"].pop("values") == pytest.approx(means)
    assert found["sex"] == {"worst": "m", "best": "f", "value": gap.value, "low": gap.low, "high": gap.high, "p": gap.p}
    assert found["hand"] is None
    assert "no gap by hand: fewer than two groups have 30 people or images" in compared.tables[0].notes
    assert "gap by hand: left out, fewer than 30 images: l (20)" in compared.tables[0].notes


@pytest.fixture
def by_age(make_run, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Return the folder of a run on ages 15 to 24 in which men are older, the ages, and the estimates."""
    rng = np.random.default_rng(4)
    ages = np.where(rng.random(IMAGES) < np.where(SEX == "m", 0.8, 0.3), rng.integers(20, 25, IMAGES), 18)
    ages[0] = 15
    points = ages + rng.integers(-2, 3, IMAGES)
    about = {"people": [""] * IMAGES, "bootstrap": {"over": "image", "groups": IMAGES}}
    run = make_run("by_age/a", points=points, targets=ages.tolist(), labels=range(15, 25), **about)
    write_csv(run / "groups.csv", ("name", "sex"), zip([f"{i}.jpg" for i in range(IMAGES)], SEX, strict=True))
    train = [(f"t{i}.jpg", "train", "", age) for i, age in enumerate((16, 17, 17, 18, 20))]
    write_csv(run / "split.csv", ("name", "part", "identity", "target"), train)
    return tmp_path / "by_age", ages, points


def standardised(values: np.ndarray, ages: np.ndarray) -> float:
    """Return the difference of the mean values of men and women, with the shares of both decades in all images."""
    found = {}
    for sex in "fm":
        means = [values[(sex == SEX) & (ages // 10 == decade)].mean() for decade in (1, 2)]
        found[sex] = np.average(means, weights=[(ages // 10 == decade).sum() for decade in (1, 2)])
    return abs(found["m"] - found["f"])


def test_the_baseline_and_the_run_have_a_gap_and_an_age_standardised_one(by_age) -> None:
    folder, ages, points = by_age

    compared = with_gaps(compare(find_runs([folder])), ["sex"])

    (table,) = compared.tables
    (baseline,) = table.baselines
    for line, values in ((table.rows[0], np.abs(points - ages)), (baseline, np.abs(17.0 - ages))):
        gap, adjusted = line.gaps["test/mae", "sex"], line.standardised["sex"]
        assert gap is not None
        assert adjusted is not None
        assert gap.value == pytest.approx(abs(values[SEX == "m"].mean() - values[SEX == "f"].mean()))
        assert adjusted.value == pytest.approx(standardised(values, ages))
        assert adjusted.low < adjusted.value < adjusted.high
    for form in ("md", "html", "latex"):
        text = render.RENDERERS[form](compared)
        line = next(each for each in text.splitlines() if "always the median" in each) if form != "html" else text
        assert f"{baseline.gaps['test/mae', 'sex'].value:.2f} [" in line
        assert f"{baseline.standardised['sex'].value:.2f} [" in line
        assert "Gaps are not adjusted for the ages of the groups" in " ".join(text.split())
    found = json.loads(render.to_json(compared))["tables"][0]
    for line in (found["groups"][0], found["baselines"][0]):
        assert line["gaps"].keys() == {"sex", "age_standardised_sex"}
    assert (
        "age-standardised gap by sex: over the decades in which every group has 5 images (10s, 20s); 0 of 120 images "
        "are left out"
    ) in table.notes


def test_groups_without_common_decades_have_a_gap_but_no_age_standardised_one(by_age) -> None:
    folder, ages, _ = by_age
    sex = np.where(ages >= 20, "m", "f")
    sex[np.flatnonzero(sex == "m")[:3]] = "x"
    write_csv(folder / "a" / "groups.csv", ("name", "sex"), zip([f"{i}.jpg" for i in range(IMAGES)], sex, strict=True))

    (table,) = with_gaps(compare(find_runs([folder])), ["sex"]).tables

    assert table.rows[0].gaps["test/mae", "sex"] is not None
    assert table.rows[0].standardised == {"sex": None}
    assert [note for note in table.notes if "gap" in note] == [
        "gap by sex: left out, fewer than 30 images: x (3)",
        "age-standardised gap by sex: left out, fewer than 30 images in the decades that all groups have: f (0), m (0)",
        "no age-standardised gap by sex: fewer than two groups have 30 people or images",
    ]


def test_a_baseline_of_other_train_images_than_those_of_the_first_row_has_no_gap(by_age) -> None:
    (table,) = compare(find_runs([by_age[0]])).tables
    other = replace(table, baselines=(replace(table.baselines[0], metrics={"test/mae": 9.0}),))

    (table,) = with_gaps(Comparison((other,), (), ""), ["sex"]).tables

    assert not table.baselines[0].gaps
    assert table.rows[0].gaps["test/mae", "sex"] is not None


def test_classes_have_no_age_standardised_gap(make_run, tmp_path: Path) -> None:
    points = [min(29, target + i % 3 // 2) for i, target in enumerate(TARGETS)]
    run = make_run("a", points=points, targets=TARGETS, people=[""] * IMAGES, protocol="demo/official/label")
    write_csv(run / "groups.csv", ("name", "sex"), zip([f"{i}.jpg" for i in range(IMAGES)], SEX, strict=True))

    (table,) = with_gaps(compare(find_runs([tmp_path])), ["sex"]).tables

    right = np.array(points) == TARGETS
    gap = table.rows[0].gaps["test/accuracy", "sex"]
    assert gap is not None
    assert gap.value == pytest.approx(abs(right[SEX == "m"].mean() - right[SEX == "f"].mean()))
    assert not table.rows[0].standardised
    assert "adjusted for the ages" not in caption(table)


def test_a_metric_that_is_no_mean_over_images_has_a_note_instead_of_gaps(folder: Path) -> None:
    compared = with_gaps(compare(find_runs([folder]), "rmse"), ["sex"])

    assert not compared.tables[0].rows[0].gaps
    assert "no gaps: rmse is not a mean over images" in compared.tables[0].notes


def test_groups_that_lack_an_image_have_a_note(folder: Path) -> None:
    write_csv(folder / "b" / "groups.csv", ("name", "sex"), [("0.jpg", "f")])

    compared = with_gaps(compare(find_runs([folder])), ["sex"])

    assert [row.gaps["test/mae", "sex"] is None for row in compared.tables[0].rows] == [False, True]
    assert any(note.startswith("no gap: the groups of b lack the image") for note in compared.tables[0].notes)


def test_a_column_that_no_run_has_is_an_error(folder: Path) -> None:
    compared = compare(find_runs([folder]))

    with pytest.raises(UserError, match=r"no run here has groups by 'sx' \(did you mean 'sex'\?\); columns: sex, hand"):
        with_gaps(compared, ["sx"])


def test_columns_of_choice_replace_the_usual_ones_in_the_given_order(folder: Path) -> None:
    compared = compare(find_runs([folder]), columns=["rmse", "c*", "test/CS5", "mae"])

    header = render.to_markdown(compared).splitlines()[2]
    names = [cell.strip() for cell in header.split("|")]
    assert names[names.index("p (Holm)") + 1 : names.index("fit (s)")] == ["rmse", "cs5"]


def test_a_column_that_matches_no_metric_is_an_error(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no run here has the metric 'rms' \(did you mean 'rmse'\?\); known: accuracy"):
        compare(find_runs([folder]), columns=["mae", "rms"])


FITTED = {
    "coverage": 0.9,
    "temperature": 1,
    "threshold": 0.18,
    "over": "image",
    "groups": 9,
    "images": 9,
    "nll": [1, 1],
}


def sets(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the set of each image, for a posterior of 0.55 at the estimate and 0.05 elsewhere."""
    # Both tails of a label must be at least 0.18, or it is next to the estimate. A tail of three labels has 0.15.
    likely = np.clip(np.rint(points), 20, 29)
    return np.minimum(likely, 23), np.maximum(likely, 26)


@pytest.fixture
def calibrated(make_run, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Return the folder of a calibrated run with groups, whether the set of each image has its age, and its width."""
    points = np.array(TARGETS) + np.random.default_rng(0).integers(-4, 5, size=IMAGES)
    low, high = sets(points)
    covered, width = (low <= TARGETS) & (high >= TARGETS), high - low
    metrics = {"test/mae": float(np.abs(points - TARGETS).mean()), "test/coverage": float(covered.mean())}
    run = make_run(
        "calibrated/a",
        points=points,
        targets=TARGETS,
        people=[""] * IMAGES,
        calibration=FITTED,
        metrics=metrics | {"test/range_width": float(width.mean())},
    )
    write_csv(run / "groups.csv", ("name", "sex"), zip([f"{i}.jpg" for i in range(IMAGES)], SEX, strict=True))
    return tmp_path / "calibrated", covered, width


def test_calibrated_runs_have_the_gaps_of_coverage_and_width(calibrated) -> None:
    folder, covered, width = calibrated

    compared = with_gaps(compare(find_runs([folder])), ["sex"])

    gaps = compared.tables[0].rows[0].gaps
    for metric, numbers in (("test/coverage", covered), ("test/range_width", width)):
        gap = gaps[metric, "sex"]
        assert gap is not None
        assert gap.values == pytest.approx({sex: numbers[sex == SEX].mean() for sex in "fm"})
        welch = ttest_ind(
            numbers[gap.worst == SEX].astype(float), numbers[gap.best == SEX].astype(float), equal_var=False
        )
        low, high = sorted(np.sign(welch.statistic) * np.array(welch.confidence_interval()))
        assert [gap.low, gap.high] == pytest.approx([low, high], abs=0.1 * (high - low))
    text = render.to_markdown(compared)
    assert "gap of coverage by sex [95% CI] (worst, best)" in text
    worst, best = sorted((covered[sex == SEX].mean(), sex) for sex in "fm")
    assert f"({worst[1]} {worst[0]:.3f}, {best[1]} {best[0]:.3f})" in text
    (row,) = csv.DictReader(io.StringIO(render.to_csv(compared)))
    assert float(row["gap_coverage_sex"]) == pytest.approx(best[0] - worst[0])


def test_a_table_of_a_group_has_the_coverage_of_the_group_with_its_interval(calibrated) -> None:
    folder, covered, width = calibrated

    runs, _ = by_group(find_runs([folder]), ["sex"])

    for run, sex in zip(runs, "fm", strict=True):
        own = covered[sex == SEX]
        assert run.metrics["test/coverage"] == pytest.approx(own.mean())
        assert run.metrics["test/range_width"] == pytest.approx(width[sex == SEX].mean())
        half = student.ppf(0.975, len(own) - 1) * own.std(ddof=1) / len(own) ** 0.5
        assert run.result("intervals", "test/coverage") == pytest.approx(
            [own.mean() - half, own.mean() + half], abs=half / 4
        )


def test_a_run_without_a_calibration_has_a_note_instead_of_the_gap_of_its_coverage(calibrated, make_run) -> None:
    folder, *_ = calibrated
    make_run("calibrated/b", points=np.array(TARGETS) + 1, head="coral", targets=TARGETS, people=[""] * IMAGES)

    (table,) = with_gaps(compare(find_runs([folder])), ["sex"]).tables

    assert [row.gaps["test/coverage", "sex"] is None for row in table.rows] == [True, False]
    assert "no gap: b is not calibrated" in table.notes
