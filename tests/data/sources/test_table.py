"""A CSV file of images and labels."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.data.sources.table import Table
from agebench.errors import UserError
from agebench.files import write_csv

COLUMNS = {"path": "path", "label": "label", "age": "age", "identity": "identity", "split": "split"}


def table(
    folder: Path, *lines: str, label: str = "class", columns: dict[str, str] = COLUMNS, encoding: str = "utf-8"
) -> Table:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.csv").write_bytes("\n".join(lines).encode(encoding))
    return Table(str(folder / "mine.csv"), columns, label=label)


def test_records_have_the_columns_and_the_order_of_the_rows(tmp_path: Path) -> None:
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
    assert records.own_parts
    assert source.targets == ("class",)


def test_columns_may_have_other_names_and_identity_and_split_are_optional(tmp_path: Path) -> None:
    columns = {"path": "file", "label": "kind"}

    records = table(tmp_path, "kind,file,split", "cat,a.png,nonsense", columns=columns).records()

    assert records.names.tolist() == ["a.png"]
    assert set(records.columns) == {"class"}
    assert not records.own_parts


def test_numeric_labels_are_sorted_as_numbers(tmp_path: Path) -> None:
    records = table(tmp_path, "path,label", "a,10", "b,2", "c,-1", "d,2").records()

    assert records.class_names == ("-1", "2", "10")
    assert records.columns["class"].tolist() == [2, 1, 0, 1]


@pytest.mark.parametrize("odd", ["²", "--5", "5a", "7" * 5000])
def test_labels_that_are_not_all_integers_are_sorted_as_text(tmp_path: Path, odd: str) -> None:
    records = table(tmp_path, "path,label", "a,10", "b,9", f"c,{odd}").records()

    assert records.class_names == tuple(sorted(["10", "9", odd]))


def test_ages_with_decimals_are_cut_to_completed_years_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ("a,25", "b,25.9", "c,0", "d,20.5", "e,25.9", "f,30.0")

    records = table(tmp_path, "path,age", *rows, label="auto").records()

    assert records.columns["age"].tolist() == [25, 25, 0, 20, 25, 30]
    assert caplog.messages == [
        f"{tmp_path / 'mine.csv'}: 3 ages have decimals and were cut to completed years, such as 25.9 to 25"
    ]


def test_ages_are_whole_years(tmp_path: Path) -> None:
    source = table(tmp_path, "path,label", "a,25", "b,25.9", "c,0", label="age")

    records = source.records()

    assert records.columns["age"].tolist() == [25, 25, 0]
    assert records.columns["age"].dtype == np.int64
    assert source.targets == ("age", "decade", "bins")


def test_a_table_with_ages_and_no_labels_needs_no_setting(tmp_path: Path) -> None:
    rows = ("x.png,30,m", "y.png,41,f")
    columns = {"path": "path", "label": "label", "age": "age"}

    ages = table(tmp_path / "a", "path,age,sex", *rows, columns=columns, label="auto")
    renamed = table(tmp_path / "b", "path,years,sex", *rows, columns={**columns, "age": "years"}, label="auto")
    both = table(tmp_path / "c", "path,age,label", *rows, columns=columns, label="auto")

    assert ages.records().columns["age"].tolist() == renamed.records().columns["age"].tolist() == [30, 41]
    assert ages.targets == ("age", "decade", "bins")
    assert both.records().class_names == ("f", "m")
    with pytest.raises(UserError, match="no column 'label'"):
        table(tmp_path / "d", "path,age,sex", *rows, columns=columns, label="class").prepare()


@pytest.mark.parametrize("age", ["old", "nan", "inf", "-3", "1987"])
def test_a_label_that_is_not_an_age_raises(tmp_path: Path, age: str) -> None:
    source = table(tmp_path, "path,label", "a,25", f"b,{age}", label="age")

    with pytest.raises(UserError, match=rf"mine\.csv needs .*{age}"):
        source.prepare()


@pytest.mark.parametrize(
    ("cell", "advice"),
    [
        ("NA", "fill it in, or remove the rows without an age"),
        (" ", "fill it in, or remove the rows without an age"),
        ('"34,5"', "write it with a decimal point, 34.5"),
        ("20-29", "data.columns.label=years data.source.label=class data.target=class"),
        ("20〜29", "data.columns.label=years data.source.label=class data.target=class"),
        ("1987", "write the age instead of a year of birth"),
        ("1_0", "correct it, or remove the row"),
    ],
)
def test_a_cell_that_is_no_age_is_shown_with_its_column_and_row_and_what_to_do(
    tmp_path: Path, cell: str, advice: str
) -> None:
    columns = COLUMNS | {"age": "years"}
    source = table(tmp_path, "path,years", "a,25", f"b,{cell}", "c,old", label="auto", columns=columns)

    with pytest.raises(UserError) as raised:
        source.records()

    typed = cell.strip('"')
    assert str(raised.value).startswith(
        f"{source.root} needs ages of 0 to 200 years in the column 'years', got {typed!r} in row 2 below its header, "
        "b (and 1 more row): "
    )
    assert advice in str(raised.value)


def test_the_advice_for_ranges_of_ages_works(tmp_path: Path) -> None:
    source = table(tmp_path, "path,age", "a,20-29", "b,30-39", columns=COLUMNS | {"label": "age"}, label="class")

    assert source.records().class_names == ("20-29", "30-39")


@pytest.mark.parametrize("label", ["auto", "age"])
def test_a_column_of_ages_that_does_not_exist_is_named(tmp_path: Path, label: str) -> None:
    source = table(tmp_path, "path,age,sex", "a,25,f", columns=COLUMNS | {"age": "years"}, label=label)

    with pytest.raises(UserError, match=r"no column 'years', only path, age, sex: .* data\.columns\.age=NAME"):
        source.records()


@pytest.mark.parametrize(("header", "nearest"), [(" age", "' age'"), ("Age", "Age"), ("\uff21ge", "\uff21ge")])
def test_a_column_age_that_is_spelled_otherwise_is_suggested(tmp_path: Path, header: str, nearest: str) -> None:
    source = table(tmp_path, f"path,{header},sex", "a,25,f", label="auto")

    with pytest.raises(UserError) as raised:
        source.records()

    assert f"no column 'age' and no column 'label', only path, {nearest}, sex (did you mean {header!r}?)" in str(
        raised.value
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_in_utf8_is_read_with_or_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    records = table(tmp_path, "path,label", '"あ,い.png",猫', "", "b.png,犬", encoding=encoding).records()

    assert records.names.tolist() == ["あ,い.png", "b.png"]
    assert records.class_names == ("犬", "猫")  # U+72AC before U+732B


@pytest.mark.parametrize(("encoding", "name"), [("cp932", "Shift-JIS (cp932)"), ("utf-16", "UTF-16")])
def test_a_table_in_another_encoding_is_read_and_a_line_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, name: str
) -> None:
    caplog.set_level("INFO")

    records = table(tmp_path, "path,label", "①.png,表", "b.png,ﾈｺ", encoding=encoding).records()

    assert records.names.tolist() == ["①.png", "b.png"]
    assert records.class_names == ("表", "ﾈｺ")
    table(tmp_path, "path,label", "①.png,表", "b.png,ﾈｺ", encoding=encoding).records()  # no second line
    assert caplog.messages == [f"{tmp_path / 'mine.csv'} is read as {name}"]


WESTERN = [
    "métis",
    "Müller",
    "âgée;née",
    "études",
    "Ägypten",
    "STRAßE",
    "MÉTIS",
    "España",
    "sœur",
    "l’œuvre",
    "Þórður",
    "IMG_José",
]


@pytest.mark.parametrize("word", WESTERN)
def test_a_table_in_windows_1252_is_read_and_a_line_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, word: str
) -> None:
    caplog.set_level("INFO")

    records = table(tmp_path, "path,label", f"a.png,{word}", "b.png,femme noire", encoding="cp1252").records()

    assert set(records.class_names) == {word, "femme noire"}
    assert caplog.messages == [
        f"{tmp_path / 'mine.csv'} is read as Western European (Windows-1252, cp1252)",
    ]


JAPANESE = ["男", "山", "黄色人種", "A組", "aとb", "Tシャツ", "ﾔﾏﾀﾞ", "Tﾏﾆﾃ", "Aｸﾗｽ", "髙橋", "﨑", "鴎外", "ｱ", "写真a"]


@pytest.mark.parametrize("word", JAPANESE)
def test_a_japanese_table_in_shift_jis_is_not_taken_for_a_western_one(tmp_path: Path, word: str) -> None:
    records = table(tmp_path, "path,label", f"a.png,{word}", "b.png,x", encoding="cp932").records()

    assert set(records.class_names) == {word, "x"}


@pytest.mark.parametrize(
    "content",
    [
        "métis".encode("mac-roman"),
        "m²".encode("cp1252"),
        "Peña ²".encode("cp1252"),
        "ça".encode("cp1252"),
        "子".encode("cp932"),
        "mężczyzna".encode("cp1250"),
    ],
    ids=["Mac Roman", "a sign", "a sign and an accent", "either", "either too", "Polish"],
)
def test_a_table_whose_encoding_is_unknown_is_refused(tmp_path: Path, content: bytes) -> None:
    source = table(tmp_path)
    source.root.write_bytes(b"path,label\na.png," + content + b"\n")

    with pytest.raises(UserError, match=r"(it may be|it is not text in) .*Windows-1252\): save it as CSV UTF-8"):
        source.prepare()


def test_a_table_in_utf8_is_read_without_a_line_about_its_encoding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    table(tmp_path, "path,label", "a.png,猫").prepare()

    assert caplog.messages == []


@pytest.mark.parametrize("content", [b"path,label\n\x00\x01", b"\x89PNG\r\n\xff\xfd", b"\xff\xfep", b"path,\x81"])
def test_a_table_that_is_not_text_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    source = table(tmp_path)
    source.root.write_bytes(content)

    with pytest.raises(
        UserError, match=r"it is not text in UTF-8, UTF-16, Shift-JIS or Windows-1252.*save it as CSV UTF-8"
    ):
        source.prepare()


def test_a_table_that_agebench_wrote_is_read_without_its_apostrophes(tmp_path: Path) -> None:
    write_csv(tmp_path / "mine.csv", ("path", "label"), [("=a.png", "-"), ("'b.png", "+x")])

    records = Table(str(tmp_path / "mine.csv"), COLUMNS).records()

    assert records.names.tolist() == ["=a.png", "'b.png"]
    assert set(records.class_names) == {"-", "+x"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ("file,label", "a,b"),
            r"no column 'path', only file, label: set the name of yours with data\.columns\.path=NAME",
        ),
        (("path,kind", "a,b"), r"no column 'label'"),
        (("",), r"no column 'path', only none"),
        (("path,label",), "a header but no rows"),
        (("path,label", "x,b", "a,b", "a,c"), r"lists a twice: each path must occur once"),
        (("path,label", "a,b", ",c"), "has no path in row 2 below its header: fill it in"),
        (("path,label", "a,b", "c.png,"), "has no label for c.png in row 2 below its header: fill it in"),
        (("path,label", "a,b", "c.png"), "has no label for .*c.png"),
        (("path,label,split", "a,b,training"), "split must be train, val or test, got training"),
    ],
)
def test_an_invalid_table_raises_with_the_row_or_column(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    source = table(tmp_path, *lines)

    with pytest.raises(UserError, match=message):
        source.prepare()


def test_a_missing_table_raises(tmp_path: Path) -> None:
    for root in (tmp_path / "gone.csv", tmp_path):
        with pytest.raises(UserError, match=r"data\.root must be a CSV file"):
            Table(str(root), COLUMNS).prepare()


def test_relative_paths_start_at_the_folder_of_the_table(tmp_path: Path) -> None:
    far = tmp_path / "elsewhere" / "far.png"
    for path, shade in ((tmp_path / "data" / "img" / "near.png", 7), (far, 9)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3), shade).save(path)
    source = table(tmp_path / "data", "path,label", "img/near.png,a", f"{far},b", "img/gone.png,a")

    assert source.present().tolist() == [True, True, False]
    assert [int(np.asarray(source.open(row))[0, 0]) for row in (0, 1)] == [7, 9]


def test_stamps_depend_on_the_files_and_not_on_the_labels(tmp_path: Path) -> None:
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


def test_an_identity_column_with_a_blank_cell_raises(tmp_path: Path) -> None:
    rows = ("path,label,identity", "a.png,x,anna", "b.png,y,")

    with pytest.raises(UserError, match=r"has no identity for b.png, but for other rows.*data\.columns\.identity=null"):
        table(tmp_path, *rows).records()
    source = Table(str(tmp_path / "mine.csv"), {"path": "path", "label": "label", "identity": None})

    assert "identity" not in source.records().columns


def test_two_spellings_of_one_path_raise(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lists a\.png twice"):
        table(tmp_path, "path,label", "a.png,x", "./a.png,y").records()


@pytest.mark.parametrize(
    ("column", "named", "nearest"), [("identity", "person", "persons"), ("split", "prt", "part"), ("split", "x", "")]
)
def test_a_column_with_a_name_set_by_the_user_must_exist(tmp_path: Path, column: str, named: str, nearest: str) -> None:
    source = table(tmp_path, "path,label,persons,part", "a,b,c,train", columns=COLUMNS | {column: named})

    with pytest.raises(UserError) as raised:
        source.records()

    guess = f" (did you mean '{nearest}'?)" if nearest else ""
    assert str(raised.value) == (
        f"{source.root} has no column '{named}', only path, label, persons, part{guess}: "
        f"set the name of yours with data.columns.{column}=NAME"
    )


def test_the_default_column_names_are_those_of_the_config(compose_config) -> None:
    usual = compose_config("data=table", "data.root=x.csv").data.columns

    assert dict(usual) == COLUMNS == {column: column for column in usual}


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_with_semicolons_or_tabs_is_read(tmp_path: Path, mark: str) -> None:
    lines = ("path,label,identity", "a.png,cat,p1", "b.png,dog,p2")

    records = table(tmp_path, *(line.replace(",", mark) for line in lines)).records()

    assert records.names.tolist() == ["a.png", "b.png"]
    assert records.columns["identity"].tolist() == ["p1", "p2"]


def test_a_table_without_read_permission_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = table(tmp_path, "path,label", "a,b")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(source.root))

    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(UserError, match=r"cannot read .*mine\.csv \(Permission denied\): check its permissions"):
        source.records()


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_files_are_found_in_another_unicode_form_than_in_the_table(tmp_path: Path, on_disk: str, in_table: str) -> None:
    Image.new("L", (3, 3), 9).save(tmp_path / unicodedata.normalize(on_disk, "Chloé.png"))

    source = table(tmp_path, "path,label", f"{unicodedata.normalize(in_table, 'Chloé.png')},x")

    assert source.present().tolist() == [True]
    assert np.asarray(source.open(0)).max() == 9


@pytest.mark.parametrize("path", ["y" * 300 + ".png", "y/" * 5000 + "x.png"])
def test_a_path_that_is_too_long_for_the_disk_is_a_missing_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "a.png").touch()

    source = table(tmp_path, "path,label", f"{path},1", "a.png,2")

    assert source.present().tolist() == [False, True]


def test_blank_lines_and_surplus_cells_are_ignored_and_the_row_number_counts_rows(tmp_path: Path) -> None:
    lines = ("path,label", "", "a.png,x,surplus", "", '"two\nlines.png",y')

    records = table(tmp_path, *lines).records()

    assert records.names.tolist() == ["a.png", "two\nlines.png"]
    with pytest.raises(UserError, match="has no path in row 3 below its header"):
        table(tmp_path, *lines, ",z").records()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.png", "x/../a.png"),
        ("x/a.png", "x//a.png"),
        ("x/a.png", "x/./a.png"),
        ("x", "x/"),
        ("é.png", "e\u0301.png"),
        (".x", "./.x"),
    ],
)
def test_paths_that_differ_only_in_spelling_raise_among_many_others(tmp_path: Path, first: str, second: str) -> None:
    others = [f"img/{i}.png,x" for i in range(20)]

    with pytest.raises(UserError, match="twice: each path must occur once"):
        table(tmp_path, "path,label", f"{first},x", *others, f"{second},x").records()


def test_the_error_on_an_age_names_the_first_wrong_row(tmp_path: Path) -> None:
    source = table(tmp_path, "path,label", "a,25", "b,300", "c,-1", "d,300", label="age")

    with pytest.raises(
        UserError,
        match=r"ages of 0 to 200 years in the column 'label', got '300' in row 2 below its header, b \(and 2 more ",
    ):
        source.records()


def test_files_are_found_by_listing_each_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.png", "a/2.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (3, 3)).save(tmp_path / name)
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "a" / "link.png").symlink_to("1.png")
    (tmp_path / "a" / "dead.png").symlink_to("gone.png")
    there = ["a/1.png", "./a//2.png", "b.png", "a/link.png"]
    gone = ["a/folder.png", "a/dead.png", "a/9.png", "c/1.png", "b.png/1.png", *(f"c/{i}.png" for i in range(2, 50))]
    source = table(tmp_path, "path,label", *(f"{path},x" for path in there + gone))
    source.records()
    listed: list[str] = []
    monkeypatch.setattr(os, "scandir", lambda path, scandir=os.scandir: listed.append(str(path)) or scandir(path))
    monkeypatch.setattr(Path, "is_file", lambda _: pytest.fail("asked for a single file"))

    present = source.present()

    assert present.tolist() == [True] * len(there) + [False] * len(gone)
    assert len(listed) == 5  # ., a, ./a, b.png and c
    monkeypatch.undo()
    assert source.open(1).size == (3, 3)


def test_files_in_a_folder_that_cannot_be_listed_are_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    source = table(tmp_path, "path,label", "a.png,x", "b.png,x")
    source.records()

    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)

    assert source.present().tolist() == [True, False]
