"""Runs that are ranked within groups of their test images."""

from pathlib import Path

import numpy as np
import pytest

from agebench.comparison import render
from agebench.comparison.by_group import by_group
from agebench.comparison.tables import compare
from agebench.errors import UserError
from agebench.files import write_csv
from agebench.runs.read import find_runs

IMAGES = 100
TARGETS = [20 + i % 10 for i in range(IMAGES)]
SEX = ["f" if i < 60 else "m" for i in range(IMAGES)]
PEOPLE = [f"p{i}" for i in range(IMAGES)]


def write_groups(folder: Path, sex: list[str] = SEX, **columns: list[str]) -> None:
    rows = zip([f"{i}.jpg" for i in range(IMAGES)], sex, *columns.values(), strict=True)
    write_csv(folder / "groups.csv", ("name", "sex", *columns), rows)


def points(women: float, men: float) -> list[float]:
    """Return estimates with an absolute error for each sex, above and below the true age in turn."""
    signs = [1 if i % 2 else -1 for i in range(IMAGES)]
    return [
        t + s * (women if sex == "f" else men) + 0.01 * (i % 3)
        for i, (t, s, sex) in enumerate(zip(TARGETS, signs, SEX, strict=True))
    ]


@pytest.fixture
def two_runs(make_run, tmp_path: Path) -> Path:
    """Return a folder with a run that is better on women and a run that is better on men."""
    common = {"targets": TARGETS, "people": PEOPLE}
    write_groups(make_run("runs/women", points=points(1, 3), head="softmax", **common))
    make_run("runs/men", points=points(3, 1), head="coral", **common)
    return tmp_path / "runs"


def test_each_group_has_a_table_with_its_own_ranks(two_runs: Path) -> None:
    runs, notes = by_group(find_runs([two_runs]), ["sex"])

    tables = compare(runs).tables

    errors = {
        name: np.abs(np.array(points(*errors)) - TARGETS) for name, errors in (("women", (1, 3)), ("men", (3, 1)))
    }
    own = np.array(SEX) == "f"
    assert notes == []
    assert [(t.group, t.images) for t in tables] == [("sex = f", 60), ("sex = m", 40)]
    for table, chosen, order in zip(tables, (own, ~own), (["women", "men"], ["men", "women"]), strict=True):
        assert [row.group.runs[0].folder.name for row in table.rows] == order
        assert [row.group.mean("test/mae") for row in table.rows] == pytest.approx(
            [errors[name][chosen].mean() for name in order]
        )
        difference = table.rows[1].difference
        assert difference is not None
        assert difference.value == pytest.approx((errors[order[1]] - errors[order[0]])[chosen].mean())
        assert table.paired is not None
        assert (table.paired.over, table.paired.drawn) == ("people", chosen.sum())


def test_the_group_is_in_every_format_and_separate_tables_need_no_reason(two_runs: Path) -> None:
    compared = compare(by_group(find_runs([two_runs]), ["sex"])[0])

    texts = {name: draw(compared) for name, draw in render.RENDERERS.items()}

    assert compared.not_comparable == ""
    assert "## demo/official/age, sex = f: 60 test images of 60 people" in texts["md"]
    assert texts["csv"].splitlines()[0].startswith("protocol,split_sha,group,rank,")
    assert '"group": "sex = m"' in texts["json"]
    assert all("sex = m" in text for text in texts.values())


def test_without_groups_the_csv_has_no_column_for_them(two_runs: Path) -> None:
    header = render.to_csv(compare(find_runs([two_runs]))).splitlines()[0]

    assert header.startswith("protocol,split_sha,rank,")


def test_pairs_of_columns_and_small_groups_are_named(two_runs: Path) -> None:
    hands = ["l" if i < 35 or i > 95 else "r" for i in range(IMAGES)]
    write_groups(two_runs / "men", hand=hands)

    runs, notes = by_group(find_runs([two_runs]), ["sex", "hand"])

    assert [table.group for table in compare(runs).tables] == ["sex x hand = f x l", "sex x hand = m x r"]
    assert notes == [
        "not ranked: sex x hand = f x r, 25 people (fewer than 30)",
        "not ranked: sex x hand = m x l, 4 people (fewer than 30)",
    ]


def test_the_groups_of_an_evaluation_are_those_of_its_run(two_runs: Path, make_run) -> None:
    make_run(
        "runs/men/evaluate/now",
        points=points(3, 1),
        head="coral",
        targets=TARGETS,
        people=PEOPLE,
        run=str(two_runs / "men"),
    )
    (two_runs / "women" / "groups.csv").unlink()
    write_groups(two_runs / "men" / "evaluate" / "now")

    tables = compare(by_group(find_runs([two_runs]), ["sex"])[0]).tables

    assert [len(table.rows) for table in tables] == [2, 2]


def test_the_baseline_of_a_group_uses_only_its_images(two_runs: Path) -> None:
    for run in two_runs.iterdir():
        lines = [(f"t{i}.jpg", "train", "", 20 + i % 3) for i in range(9)]
        write_csv(run / "split.csv", ("name", "part", "identity", "target"), lines)

    tables = compare(by_group(find_runs([two_runs]), ["sex"])[0]).tables

    expected = [np.abs(np.array(TARGETS[:60]) - 21).mean(), np.abs(np.array(TARGETS[60:]) - 21).mean()]
    assert [table.baselines[0].metrics["test/mae"] for table in tables] == pytest.approx(expected)


def test_runs_that_did_not_complete_are_listed_once(two_runs: Path, make_run) -> None:
    make_run("runs/failed", status="failed", error="no")

    compared = compare(by_group(find_runs([two_runs]), ["sex"])[0])

    assert [run.folder.name for run in compared.unranked] == ["failed"]


@pytest.mark.parametrize(
    ("groups", "columns", "message"),
    [
        (None, ["sex"], r"no run here has groups by 'sex'; groups: evaluate run=FOLDER data\.groups=\[COLUMN\]"),
        (SEX, ["sx"], r"no run here has groups by 'sx' \(did you mean 'sex'\?\); columns: sex"),
        (SEX, ["sex", ""], r"no run here has groups by ''; columns: sex"),
        ([str(i // 20) for i in range(IMAGES)], ["sex"], r"nothing to rank by sex: not ranked: sex = 0, 20 people"),
    ],
)
def test_groups_that_do_not_exist_or_are_too_small_are_an_error(
    two_runs: Path, groups: list[str] | None, columns: list[str], message: str
) -> None:
    (two_runs / "women" / "groups.csv").unlink()
    if groups is not None:
        write_groups(two_runs / "women", groups)

    with pytest.raises(UserError, match=message):
        by_group(find_runs([two_runs]), columns)


def test_a_file_of_groups_that_lacks_images_is_reported(two_runs: Path) -> None:
    write_csv(two_runs / "women" / "groups.csv", ("name", "sex"), [("0.jpg", "f")])

    with pytest.raises(UserError, match=r"the groups of \w+ lack the image '1\.jpg'"):
        by_group(find_runs([two_runs]), ["sex"])
