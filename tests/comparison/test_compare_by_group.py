"""Runs that are ranked within groups of their test images."""

from pathlib import Path

import numpy as np
import pytest

from agebench.comparison import render
from agebench.comparison.by_group import by_group
from agebench.comparison.html_page import to_html
from agebench.comparison.overview import overviews
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


@pytest.fixture
def overview_of(make_run, tmp_path: Path):
    """Return a function that returns the overview of two heads with two seeds, and the expected means over seeds."""
    errors = {"coral": [(1, 3), (1.5, 3.2)], "softmax": [(2.5, 0.5), (2.9, 0.6)]}
    for head, of_seeds in errors.items():
        for seed, pair in enumerate(of_seeds):
            run = make_run(
                f"runs/{head}{seed}", points=points(*pair), head=head, seed=seed, targets=TARGETS, people=PEOPLE
            )
            write_groups(run)
            lines = [(f"t{i}.jpg", "train", "", 20 + i % 3) for i in range(9)]
            write_csv(run / "split.csv", ("name", "part", "identity", "target"), lines)
    own = np.array(SEX) == "f"
    absolute = {head: [np.abs(np.array(points(*pair)) - TARGETS) for pair in each] for head, each in errors.items()}
    means = {
        head: [[each[chosen].mean() for each in runs] for chosen in (own, ~own)] for head, runs in absolute.items()
    }
    blind = np.abs(np.array(TARGETS) - 21)
    return compare(by_group(find_runs([tmp_path]), ["sex"])[0]), means, [blind[own].mean(), blind[~own].mean()]


def test_an_overview_has_a_row_per_config_and_a_column_per_group_of_test_images(overview_of) -> None:
    compared, means, blind = overview_of

    (overview,) = overviews(compared)
    page = to_html(compared)

    cells = overview.cells
    assert overview.heading == "demo/official/age: mae (years) ↓ by sex (split aaaabbbb)"
    assert cells.header == ["head", "n", "f (60)", "m (40)", "mean of groups"]
    expected = [
        [head, "2", *(f"{np.mean(each):.2f} ± {np.std(each, ddof=1):.2f}" for each in means[head])]
        for head in ("softmax", "coral")  # sorted by the mean of groups
    ]
    assert [row[:-1] for row in cells.rows[:2]] == expected
    assert [float(row[-1]) for row in cells.rows[:2]] == pytest.approx(
        [np.mean(means["softmax"]), np.mean(means["coral"])], abs=0.005
    )
    assert cells.rows[2] == ["always the median", "-", *(f"{each:.2f}" for each in (*blind, np.mean(blind)))]
    assert cells.quiet == [False, False, True]
    assert render.to_markdown(compared).startswith(f"## {overview.heading}\n\n| head ")
    assert page.index(f"<h2>{overview.heading}</h2>") < page.index("sex = f")


def test_the_overview_in_latex_has_the_best_of_each_group_in_bold(overview_of) -> None:
    compared, means, _ = overview_of

    body = render.to_latex(compared).split("\\begin{tabular}{lrrrr}", 1)[1].split("\\end{tabular}")[0]

    rows = [line.split(" & ") for line in body.splitlines() if " & " in line]
    best = [min(means, key=lambda head: np.mean(means[head][i])) for i in range(2)]
    assert best == ["coral", "softmax"]
    bold = {row[0]: [cell.startswith("\\textbf{") for cell in row[2:]] for row in rows[1:]}
    assert bold == {
        "softmax": [False, True, True],
        "coral": [True, False, False],
        "\\textit{always the median}": [False, False, False],
    }


def test_one_group_has_no_overview(two_runs: Path) -> None:
    for run in two_runs.iterdir():
        write_groups(run, ["f" if i < 90 else "m" for i in range(IMAGES)])

    compared = compare(by_group(find_runs([two_runs]), ["sex"])[0])

    assert [table.group for table in compared.tables] == ["sex = f"]
    assert overviews(compared) == []


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
