"""CACD: its metadata in both MATLAB formats, and its images however they were unpacked."""

import unicodedata
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from agebench.data.cacd import CACD, _key, read_metadata
from agebench.data.records import Source
from agebench.data.target import make_target
from agebench.errors import UserError

# name, age, identity, year, rank, lfw, birth: not in alphabetical order.
ROWS = [
    ("53_Robin_Williams_0001.jpg", 53, 1, 2004, 1, 1, 1951),
    ("14_Chloë_Moretz_0001.jpg", 14, 2, 2011, 3, 0, 1997),
    ("15_Chloë_Moretz_0002.jpg", 15, 2, 2012, 3, 0, 1997),
    ("42_Conan_O'Brien_0007.jpg", 42, 3, 2005, 5, 0, 1963),
    ("40_Aaron_Eckhart_0011.jpg", 40, 4, 2008, 6, 0, 1968),
    ("23_Zoë_Saldana_0003.jpg", 23, 5, 2001, 50, 1, 1978),
    ("31_Aidan_Turner_0001.jpg", 31, 6, 2013, 2, 0, 1982),
]
NAMES = [row[0] for row in ROWS]
FIELDS = ("age", "identity", "year", "rank", "lfw", "birth")
KINDS = (np.uint8, np.uint16, np.float64, np.uint8, np.float64, np.float64)


def write_v5(path: Path, *, compressed: bool = True, without: str = "") -> Path:
    fields: dict[str, Any] = {
        field: np.array([[row[i + 1]] for row in ROWS], dtype=kind)
        for i, (field, kind) in enumerate(zip(FIELDS, KINDS, strict=True))
    }
    names = np.empty((len(ROWS), 1), dtype=object)
    names[:, 0] = NAMES
    fields |= {"feature": np.empty((0, 0)), "name": names}
    fields.pop(without, None)
    scipy.io.savemat(path, {"celebrityImageData": fields}, do_compression=compressed)
    return path


def write_v73(path: Path) -> Path:
    """Write what MATLAB's save -v7.3 does: columns as (1, N) float64, cells as references to (L, 1) UTF-16 arrays."""
    with h5py.File(path, "w", userblock_size=512) as file:
        data, refs = file.create_group("celebrityImageData"), file.create_group("#refs#")
        for i, field in enumerate(FIELDS):
            data[field] = np.array([[row[i + 1] for row in ROWS]], dtype=np.float64)
        data["feature"] = np.zeros((75, len(ROWS)))
        cells = np.empty((1, len(ROWS)), dtype=h5py.ref_dtype)
        for i, name in enumerate(NAMES):
            letters = np.array([[ord(letter)] for letter in name], dtype=np.uint16)
            cells[0, i] = refs.create_dataset(f"c{i}", data=letters).ref
        data.create_dataset("name", data=cells, dtype=h5py.ref_dtype)
    raw = bytearray(path.read_bytes())
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64"
    raw[:128] = header.ljust(124) + b"\x00\x02IM"
    path.write_bytes(raw)
    return path


def draw(folder: Path, *names: str) -> None:
    """Write images whose grey value is the age in their name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (6, 6), int(name[:2])).save(folder / name, "PNG")


def shades(source: Source) -> list[int]:
    return [int(np.asarray(source.open(int(row)))[0, 0]) for row in np.flatnonzero(source.present())]


@pytest.mark.parametrize("write", [write_v5, write_v73], ids=["v5", "v7.3"])
def test_both_matlab_formats_give_every_field_of_every_row(tmp_path: Path, write: Any) -> None:
    fields = read_metadata(write(tmp_path / "meta.mat"))

    assert fields.keys() == {"name", *FIELDS}
    assert fields["name"].tolist() == NAMES
    for i, field in enumerate(FIELDS):
        assert fields[field].tolist() == [row[i + 1] for row in ROWS]
        assert fields[field].dtype == np.int64


@pytest.mark.parametrize("file", ["celebrity2000_meta.mat", "celebrity2000.mat"])
@pytest.mark.parametrize("write", [write_v5, write_v73], ids=["v5", "v7.3"])
def test_records_follow_the_metadata_and_its_ranks(tmp_path: Path, file: str, write: Any) -> None:
    write(tmp_path / file)
    draw(tmp_path / "CACD2000", *NAMES)
    source: Source = CACD(str(tmp_path))

    source.prepare()
    records = source.records()

    assert records.names.tolist() == NAMES
    assert records.columns["part"].tolist() == ["val", "test", "test", "test", "train", "train", "val"]
    assert records.columns["identity"].tolist() == [1, 2, 2, 3, 4, 5, 6]
    assert source.present().all()
    assert shades(source) == [53, 14, 15, 42, 40, 23, 31]
    assert make_target(records, "decade").label_names == ("10s", "20s", "30s", "40s", "50s")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["v5", "v5-plain", "v7.3"])
def test_metadata_cut_short_is_a_download_to_repeat(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "meta.mat"
    if kind == "v7.3":
        write_v73(path)
    else:
        write_v5(path, compressed=kind == "v5")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])

    with pytest.raises(UserError, match=r"cannot read .*meta\.mat.*download it again"):
        read_metadata(path)


def test_metadata_damaged_inside_is_a_download_to_repeat(tmp_path: Path) -> None:
    path = write_v5(tmp_path / "meta.mat")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)

    with pytest.raises(UserError, match="download it again"):
        read_metadata(path)


def test_files_of_other_kinds_are_not_metadata(tmp_path: Path) -> None:
    page, other, lacking, tree = (tmp_path / name for name in ("page.mat", "other.mat", "lacking.mat", "tree.mat"))
    page.write_text("<html>" + "not found " * 100)
    scipy.io.savemat(other, {"x": np.eye(3)})
    write_v5(lacking, without="rank")
    with h5py.File(tree, "w") as file:
        file["x"] = np.eye(3)

    for path in (page, other, lacking, tree):
        with pytest.raises(UserError, match=rf"cannot read .*{path.name} as CACD's metadata"):
            read_metadata(path)


def test_columns_of_unequal_length_are_refused(tmp_path: Path) -> None:
    fields = {field: np.ones((3, 1)) for field in FIELDS} | {"name": np.array([["a"], ["b"]], dtype=object)}
    scipy.io.savemat(tmp_path / "meta.mat", {"celebrityImageData": fields})

    with pytest.raises(UserError, match=r"differ in length \(\[2, 3\]\)"):
        read_metadata(tmp_path / "meta.mat")


@pytest.mark.parametrize("folder", ["", "CACD2000", "CACD2000/CACD2000", "images/part1"])
def test_images_are_found_wherever_the_archive_was_unpacked(tmp_path: Path, folder: str) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    draw(tmp_path / folder, *NAMES)

    assert shades(CACD(str(tmp_path))) == [53, 14, 15, 42, 40, 23, 31]


@pytest.mark.parametrize("listed", [True, False], ids=["with metadata", "without"])
def test_names_unpacked_on_macos_or_written_in_capitals_are_recognised(tmp_path: Path, listed: bool) -> None:
    if listed:
        write_v5(tmp_path / "celebrity2000_meta.mat")
    decomposed = [unicodedata.normalize("NFD", name) for name in NAMES]
    draw(tmp_path / "CACD2000", *decomposed[:5], *(name.replace(".jpg", ".JPG") for name in decomposed[5:]))
    source = CACD(str(tmp_path))

    records = source.records()

    assert decomposed != NAMES
    assert source.present().all()
    assert {unicodedata.normalize("NFC", name) for name in records.names} == set(records.names)
    ages = [int(name[:2]) for name in records.names]
    assert shades(source) == ages
    assert records.columns["age"].tolist() == ages


def test_some_of_the_images_are_enough(tmp_path: Path) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    draw(tmp_path / "CACD2000", NAMES[5], NAMES[1], "99_Not_Listed_0001.jpg")
    source = CACD(str(tmp_path))

    source.prepare()

    assert source.present().tolist() == [False, True, False, False, False, True, False]
    assert shades(source) == [14, 23]


def test_without_metadata_age_and_person_are_read_off_the_names(tmp_path: Path) -> None:
    draw(tmp_path / "CACD2000", *NAMES, "99_notes.jpg")
    source = CACD(str(tmp_path))

    source.prepare()
    records = source.records()

    known = dict(zip(records.names.tolist(), records.columns["age"].tolist(), strict=True))
    assert known == {row[0]: row[1] for row in ROWS}
    people = dict(zip(records.names.tolist(), records.columns["identity"].tolist(), strict=True))
    assert people["14_Chloë_Moretz_0001.jpg"] == people["15_Chloë_Moretz_0002.jpg"] == "Chloë_Moretz"
    assert len(set(people.values())) == 6
    assert "part" not in records.columns
    assert shades(source) == records.columns["age"].tolist()


def test_one_person_spelled_in_two_unicode_forms_is_one_person(tmp_path: Path) -> None:
    draw(tmp_path, NAMES[1], unicodedata.normalize("NFD", NAMES[2]))

    people = CACD(str(tmp_path)).records().columns["identity"]

    assert people.tolist() == ["Chloë_Moretz"] * 2


def test_no_image_is_answered_with_what_was_expected_where(tmp_path: Path) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")

    with pytest.raises(UserError, match=rf"no CACD images under {tmp_path}: expected .*CACD2000/\*\.jpg.*data=demo"):
        CACD(str(tmp_path)).prepare()
    with pytest.raises(UserError, match="no CACD images"):
        CACD(str(tmp_path / "nowhere")).prepare()


def test_images_of_other_names_without_metadata_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, "10.png", "11.png")

    with pytest.raises(UserError, match="is named as CACD's are"):
        CACD(str(tmp_path)).records()


def test_another_image_file_is_another_stamp(tmp_path: Path) -> None:
    draw(tmp_path, NAMES[0])
    before = CACD(str(tmp_path)).stamp()

    draw(tmp_path, NAMES[1])

    assert CACD(str(tmp_path)).stamp() != before


@pytest.mark.data
def test_the_real_metadata_holds_what_its_readme_says(test_data: Path) -> None:
    fields = read_metadata(test_data / "cacd" / "celebrity2000_meta.mat")

    ages, names = fields["age"], fields["name"]
    assert {len(column) for column in fields.values()} == {163_446}
    assert (ages.min(), ages.max()) == (14, 62)
    assert (fields["identity"].min(), fields["identity"].max()) == (1, 2000)
    assert len(np.unique(fields["identity"])) == 2000
    assert (np.diff(fields["identity"]) >= 0).all()
    assert (fields["year"].min(), fields["year"].max()) == (2004, 2013)
    assert (fields["rank"].min(), fields["rank"].max()) == (1, 50)
    assert set(fields["lfw"].tolist()) == {0, 1}
    assert (fields["birth"].min(), fields["birth"].max()) == (1951, 1990)
    assert (ages == fields["year"] - fields["birth"]).all()
    assert ages.tolist() == [int(name.partition("_")[0]) for name in names]
    assert sum(not name.isascii() for name in names) == 2_071
    assert sum(name.count("'") for name in names) == 1_908  # in 1,736 names
    assert len({_key(name) for name in names}) == 163_446
    assert "53_Robin_Williams_0001.jpg" in set(names)


@pytest.mark.data
def test_the_real_decades_are_as_counted(test_data: Path) -> None:
    source = CACD(str(test_data / "cacd"))

    target = make_target(source.records(), "decade")

    assert dict(zip(target.label_names, np.bincount(target.labels).tolist(), strict=True)) == {
        "10s": 7_057,
        "20s": 39_069,
        "30s": 43_104,
        "40s": 40_344,
        "50s": 30_960,
        "60s": 2_912,
    }
    assert make_target(source.records(), "age").num_labels == 49
    assert np.unique(source.records().columns["part"], return_counts=True)[1].tolist() == [10_571, 145_275, 7_600]
