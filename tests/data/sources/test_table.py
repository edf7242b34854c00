"""A CSV file of one's own."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.data.sources.table import Table
from agebench.errors import UserError

COLUMNS = {"path": "path", "label": "label", "identity": "identity", "split": "split"}


def table(
    folder: Path, *lines: str, label: str = "class", columns: dict[str, str] = COLUMNS, encoding: str = "utf-8"
) -> Table:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.csv").write_bytes("\n".join(lines).encode(encoding))
    return Table(str(folder / "mine.csv"), columns, label=label)


def test_columns_become_records_in_the_order_of_the_rows(tmp_path: Path) -> None:
    source = table(
        tmp_path, "path,label,identity,split,note", "b.png,dog,p2,train,x", "a.png,cat,p1,test,", "c.png,dog,p2,,"
    )

    source.prepare()
    records = source.records()

    assert records.names.tolist() == ["b.png", "a.png", "c.png"]
    assert records.class_names == ("cat", "dog")
    assert records.columns["class"].tolist() == [1, 0, 1]
    assert records.columns["identity"].tolist() == ["p2", "p1", "p2"]
    assert records.columns["part"].tolist() == ["train", "test", ""]
    assert source.targets == ("class",)


def test_columns_may_have_other_names_and_the_last_two_may_be_missing(tmp_path: Path) -> None:
    columns = {"path": "file", "label": "kind"}

    records = table(tmp_path, "kind,file,split", "cat,a.png,nonsense", columns=columns).records()

    assert records.names.tolist() == ["a.png"]
    assert set(records.columns) == {"class"}


def test_labels_that_are_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    records = table(tmp_path, "path,label", "a,10", "b,2", "c,-1", "d,2").records()

    assert records.class_names == ("-1", "2", "10")
    assert records.columns["class"].tolist() == [2, 1, 0, 1]


@pytest.mark.parametrize("odd", ["²", "--5", "5a"])
def test_labels_that_only_look_like_numbers_are_names(tmp_path: Path, odd: str) -> None:
    records = table(tmp_path, "path,label", "a,10", "b,9", f"c,{odd}").records()

    assert records.class_names == tuple(sorted(["10", "9", odd]))


def test_ages_are_whole_years(tmp_path: Path) -> None:
    source = table(tmp_path, "path,label", "a,25", "b,25.9", "c,0", label="age")

    records = source.records()

    assert records.columns["age"].tolist() == [25, 25, 0]
    assert records.columns["age"].dtype == np.int64
    assert source.targets == ("age", "decade", "bins")


@pytest.mark.parametrize("age", ["old", "nan", "inf", "-3", "1987"])
def test_what_is_no_age_is_refused(tmp_path: Path, age: str) -> None:
    source = table(tmp_path, "path,label", "a,25", f"b,{age}", label="age")

    with pytest.raises(UserError, match=rf"data\.source\.label=age needs .*{age}"):
        source.prepare()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_saved_by_excel_is_read_with_its_names(tmp_path: Path, encoding: str) -> None:
    records = table(tmp_path, "path,label", '"あ,い.png",猫', "", "b.png,犬", encoding=encoding).records()

    assert records.names.tolist() == ["あ,い.png", "b.png"]
    assert records.class_names == ("犬", "猫")  # U+72AC before U+732B


def test_a_table_in_shift_jis_is_refused_with_the_way_out(tmp_path: Path) -> None:
    source = table(tmp_path, "path,label", "a.png,猫", encoding="cp932")

    with pytest.raises(UserError, match="save it as CSV UTF-8"):
        source.prepare()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file,label", "a,b"), r"no column 'path', only file, label: name yours with data\.columns\.path=NAME"),
        (("path,kind", "a,b"), r"no column 'label'"),
        (("",), r"no column 'path', only none"),
        (("path,label",), "a header but no rows"),
        (("path,label", "x,b", "a,b", "a,c"), r"names a twice: every path must be there once"),
        (("path,label", "a,b", ",c"), "gives no path in row 2 below its header: fill it in"),
        (("path,label", "a,b", "c.png,"), "gives no label for .*c.png"),
        (("path,label", "a,b", "c.png"), "gives no label for .*c.png"),
        (("path,label,split", "a,b,training"), "split must be train, val or test, got training"),
    ],
)
def test_a_table_that_cannot_serve_is_refused(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    source = table(tmp_path, *lines)

    with pytest.raises(UserError, match=message):
        source.prepare()


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for root in (tmp_path / "gone.csv", tmp_path):
        with pytest.raises(UserError, match=r"data\.root must be a CSV file"):
            Table(str(root), COLUMNS).prepare()


def test_paths_are_taken_from_the_folder_of_the_table_unless_absolute(tmp_path: Path) -> None:
    far = tmp_path / "elsewhere" / "far.png"
    for path, shade in ((tmp_path / "data" / "img" / "near.png", 7), (far, 9)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3), shade).save(path)
    source = table(tmp_path / "data", "path,label", "img/near.png,a", f"{far},b", "img/gone.png,a")

    assert source.present().tolist() == [True, True, False]
    assert [int(np.asarray(source.open(row))[0, 0]) for row in (0, 1)] == [7, 9]


def test_stamps_are_of_the_files_and_not_of_the_labels(tmp_path: Path) -> None:
    far = tmp_path / "far" / "b.png"
    far.parent.mkdir()
    for path in (tmp_path / "a.png", far):
        Image.new("L", (3, 3)).save(path)
    rows = np.arange(2)
    first = table(tmp_path, "path,label", "a.png,x", f"{far},x").stamps(rows).tolist()

    relabelled = table(tmp_path, "path,label", "a.png,y", f"{far},x").stamps(rows).tolist()
    os.utime(far, ns=(1, 1))
    touched = table(tmp_path, "path,label", "a.png,x", f"{far},x").stamps(rows).tolist()

    assert first == relabelled
    assert first[0] == touched[0]
    assert first[1] != touched[1]


def test_identities_are_known_of_all_images_or_of_none(tmp_path: Path) -> None:
    rows = ("path,label,identity", "a.png,x,anna", "b.png,y,")

    with pytest.raises(UserError, match=r"says of b.png not who it is.*data\.columns\.identity=null"):
        table(tmp_path, *rows).records()
    source = Table(str(tmp_path / "mine.csv"), {"path": "path", "label": "label", "identity": None})

    assert "identity" not in source.records().columns


def test_an_image_may_not_be_there_twice_under_two_spellings_of_its_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names a\.png twice"):
        table(tmp_path, "path,label", "a.png,x", "./a.png,y").records()


@pytest.mark.parametrize(
    ("column", "named", "nearest"), [("identity", "person", "persons"), ("split", "prt", "part"), ("split", "x", "")]
)
def test_a_column_that_is_named_must_be_there(tmp_path: Path, column: str, named: str, nearest: str) -> None:
    source = table(tmp_path, "path,label,persons,part", "a,b,c,train", columns=COLUMNS | {column: named})

    with pytest.raises(UserError) as raised:
        source.records()

    guess = f" (did you mean '{nearest}'?)" if nearest else ""
    assert str(raised.value) == (
        f"{source.root} has no column '{named}', only path, label, persons, part{guess}: "
        f"name yours with data.columns.{column}=NAME"
    )


def test_the_usual_names_are_those_of_the_config(compose_config) -> None:
    usual = compose_config("data=table", "data.root=x.csv").data.columns

    assert dict(usual) == COLUMNS == {column: column for column in usual}


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_with_semicolons_or_tabs_is_read(tmp_path: Path, mark: str) -> None:
    lines = ("path,label,identity", "a.png,cat,p1", "b.png,dog,p2")

    records = table(tmp_path, *(line.replace(",", mark) for line in lines)).records()

    assert records.names.tolist() == ["a.png", "b.png"]
    assert records.columns["identity"].tolist() == ["p1", "p2"]


def test_a_table_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = table(tmp_path, "path,label", "a,b")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(source.root))

    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(UserError, match=r"cannot read .*mine\.csv \(Permission denied\): see to its permissions"):
        source.records()


def test_files_in_another_unicode_form_than_the_table_are_found(tmp_path: Path) -> None:
    Image.new("L", (3, 3), 9).save(tmp_path / unicodedata.normalize("NFD", "Chloé.png"))

    source = table(tmp_path, "path,label", "Chloé.png,x")

    assert source.present().tolist() == [True]
    assert np.asarray(source.open(0)).max() == 9
