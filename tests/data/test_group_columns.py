"""Groups of images that results are given by."""

from pathlib import Path

import numpy as np
import pytest
from memory_source import COLUMNS, Memory, make_planner

from agebench.data.groups import MAX_GROUPS, with_groups
from agebench.data.sources.table import Table
from agebench.errors import UserError


def plan_table(folder: Path, header: str, *cells: str, groups: list[str | int], present: int = 30):
    """Return the plan of a table of 30 images, of which the first have a file, with further columns."""
    lines = [f"path,label,{header}", *(f"{i}.png,{'ab'[i % 2]},{cells[i % len(cells)]}" for i in range(30))]
    (folder / "mine.csv").write_text("\n".join(lines), encoding="utf-8")
    for i in range(30 - present, 30):
        (folder / f"{i}.png").touch()
    return make_planner(Table(str(folder / "mine.csv"), COLUMNS), groups=groups).plan()


def test_the_groups_are_those_of_the_columns_of_the_images_that_exist(tmp_path: Path) -> None:
    plan = plan_table(tmp_path, "sex,race", "f,黄", "m,b", "m,w", groups=["race", "sex"], present=28)

    names = plan.records.names.tolist()
    assert len(names) == 28
    assert list(plan.records.groups) == ["race", "sex"]
    assert plan.records.groups["sex"].tolist() == ["fmm"[int(name[:-4]) % 3] for name in names]
    assert plan.records.groups["race"].tolist() == ["黄bw"[int(name[:-4]) % 3] for name in names]


def test_without_groups_no_column_is_read(tmp_path: Path) -> None:
    plan = plan_table(tmp_path, "sex", "f", groups=[])

    assert plan.records.groups == {}


@pytest.mark.parametrize("empty", ["", "  ", "\t"])
def test_an_empty_cell_is_the_group_unknown(tmp_path: Path, empty: str) -> None:
    plan = plan_table(tmp_path, "sex,note", f"{empty},x", " f ,y", groups=["sex"])

    assert set(plan.records.groups["sex"]) == {"unknown", "f"}


def test_spellings_of_one_group_are_separate_groups_and_a_warning_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_table(tmp_path, "sex,race", "male,a", "Male,b", " male,\uff41", "female,a", groups=["sex", "race"])

    assert set(plan.records.groups["sex"]) == {"male", "Male", "female"}
    assert caplog.messages == [
        "data.groups: 'Male' (8 images) and 'male' (15 images) of column 'sex' are separate groups: "
        "write them alike if they are one group",
        "data.groups: 'a' (15 images) and '\uff41' (7 images) of column 'race' are separate groups: "
        "write them alike if they are one group",
    ]


def test_a_row_that_ends_early_is_in_the_group_unknown(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("path,label,sex\na.png,x,f\nb.png,y\n", encoding="utf-8")

    cells = Table(str(tmp_path / "mine.csv"), COLUMNS).groups(["sex"])

    assert cells["sex"].tolist() == ["f", ""]


def test_numbers_are_groups_and_may_name_a_column(tmp_path: Path) -> None:
    plan = plan_table(tmp_path, "2024", "10", "9", groups=[2024])

    assert set(plan.records.groups["2024"]) == {"9", "10"}


def test_an_unknown_column_of_a_table_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'sx' \(did you mean 'sex'\?\): data\.groups .* path, label, sex"):
        plan_table(tmp_path, "sex", "f", groups=["sx"])


def test_a_column_with_many_values_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,a,{i}\n" for i in range(500))
    (tmp_path / "mine.csv").write_text("path,label,serial\n" + rows, encoding="utf-8")

    with pytest.raises(UserError, match=r"column 'serial' has 500 different values, at most 50 groups") as caught:
        make_planner(Table(str(tmp_path / "mine.csv"), COLUMNS), groups=["serial"]).plan(listed=True)

    assert "\n" not in str(caught.value)


def test_people_are_no_groups_even_if_they_are_few() -> None:
    source = Memory()
    records = source.records()
    records.columns["identity"] = np.array(["a", "b"] * 30)

    with pytest.raises(UserError, match="data=memory has no column 'identity' to group by"):
        with_groups(records, source, ["identity"], name="memory")


def test_as_many_values_as_allowed_are_accepted() -> None:
    source = Memory(np.zeros((MAX_GROUPS, 2, 2, 3), dtype=np.uint8))

    plan = make_planner(source, groups=["age"]).plan()

    assert len(set(plan.records.groups["age"])) == MAX_GROUPS


def test_a_column_called_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot have a column called 'name': rename"):
        plan_table(tmp_path, "name", "f", groups=["name"])


def test_other_sources_group_by_the_columns_of_their_records() -> None:
    plan = make_planner(Memory(), groups=["class"]).plan()

    assert plan.records.groups["class"][:3].tolist() == ["even", "odd", "even"]
    with pytest.raises(UserError, match=r"data=mine has no column 'clas' to group by \(did you mean 'class'\?\)"):
        make_planner(Memory(), groups=["clas"]).plan()


def test_groups_do_not_change_the_split_or_the_labels(tmp_path: Path) -> None:
    plans = [plan_table(tmp_path, "sex", "f", "m", groups=groups) for groups in ([], ["sex"])]

    assert plans[0].protocol == plans[1].protocol
    assert plans[0].split.test.tolist() == plans[1].split.test.tolist()
    assert plans[0].target.labels.tolist() == plans[1].target.labels.tolist()
