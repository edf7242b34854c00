"""CACD: the same records from each metadata format and from file names, with unpacked and packed images."""

import io
import os
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cacd_metadata import FIELDS, NAMES, ROWS, write_v5, write_v73

from agebench.data.records import Records, Source
from agebench.data.sources.cacd import CACD
from agebench.data.sources.cacd_metadata import read_metadata
from agebench.data.split import official
from agebench.data.target import make_target
from agebench.errors import UserError

BY_NAME = sorted(ROWS)


def image(name: str) -> bytes:
    """Return an image whose grey value is the age in its name."""
    file = io.BytesIO()
    Image.new("L", (6, 6), int(name[:2])).save(file, "PNG")
    return file.getvalue()


def draw(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(image(name))


def pack(path: Path, *names: str) -> Path:
    """Pack images into a zip, tar or tar.gz, by the suffix of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name in names:
                packed.writestr(f"CACD2000/{name}", image(name))
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"CACD2000/{name}")
            member.size = len(image(name))
            tar.addfile(member, io.BytesIO(image(name)))
    return path


def shades(source: Source) -> list[int]:
    return [int(np.asarray(source.open(int(row)))[0, 0]) for row in np.flatnonzero(source.present())]


def assert_same(records: Records, others: Records, *columns: str) -> None:
    assert records.names.tolist() == others.names.tolist()
    for column in columns:
        assert records.columns[column].tolist() == others.columns[column].tolist()
        assert records.columns[column].dtype.kind == others.columns[column].dtype.kind


def test_the_import_loads_no_package_that_is_not_always_needed() -> None:
    code = "import agebench.data.sources.cacd, sys; print(*sys.modules)"
    slow = {"scipy", "h5py", "indexed_gzip", "filelock", "tqdm", "agebench.data.sources.drawn_faces"}

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "agebench.data.sources.cacd" in loaded
    assert slow & set(loaded) == set()


@pytest.mark.parametrize("file", ["celebrity2000_meta.mat", "celebrity2000.mat"])
@pytest.mark.parametrize("write", [write_v5, write_v73], ids=["v5", "v7.3"])
def test_records_follow_the_metadata_by_name(tmp_path: Path, file: str, write: Any) -> None:
    write(tmp_path / file)
    draw(tmp_path / "CACD2000", *NAMES)
    source: Source = CACD(str(tmp_path))

    source.prepare()
    records = source.records()

    assert records.names.tolist() == [row[0] for row in BY_NAME]
    for i, field in enumerate(FIELDS):
        if field != "identity":
            assert records.columns[field].tolist() == [row[i + 1] for row in BY_NAME]
    people = "Chloë_Moretz Chloë_Moretz Zoë_Saldana Aidan_Turner Aaron_Eckhart Conan_O'Brien Robin_Williams"
    assert records.columns["identity"].tolist() == people.split()
    assert records.columns["part"].tolist() == ["test", "test", "train", "val", "train", "test", "val"]
    assert shades(source) == [14, 15, 23, 31, 40, 42, 53]
    assert make_target(records, "decade").label_names == ("10s", "20s", "30s", "40s", "50s")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_formats_and_the_names_alone_give_the_same_records(tmp_path: Path, form: Any) -> None:
    for way in ("v5", "v7.3", "names"):
        draw(tmp_path / way / "CACD2000", *(unicodedata.normalize(form, name) for name in NAMES))
    write_v5(tmp_path / "v5" / "celebrity2000_meta.mat")
    write_v73(tmp_path / "v7.3" / "celebrity2000.mat")

    v5, v73, names = (CACD(str(tmp_path / way)).records() for way in ("v5", "v7.3", "names"))

    assert_same(v5, v73, *v5.columns)
    assert_same(v5, names, "age", "identity")
    assert v5.columns.keys() == v73.columns.keys() == {*FIELDS, "part"}
    assert names.columns.keys() == {"age", "identity"}


def test_without_ranks_the_official_split_says_where_to_get_them(tmp_path: Path) -> None:
    draw(tmp_path, *NAMES)
    records = CACD(str(tmp_path)).records()

    with pytest.raises(UserError, match=r"official needs parts .* the ranks in celebrity2000_meta\.mat or "):
        official(records, make_target(records, "decade").labels)


@pytest.mark.parametrize(
    "rows",
    [
        [(name, age, 1, *rest) for name, age, _, *rest in ROWS],
        [(name, age, row, *rest) for row, (name, age, _, *rest) in enumerate(ROWS)],
        [(name, age, number, *rest) for (name, age, _, *rest), number in zip(ROWS, (1, 2, 3, 1, 4, 5, 6), strict=True)],
    ],
    ids=["several names per number", "several numbers per name", "as many numbers as names but other groups"],
)
def test_identities_are_numbers_if_numbers_and_names_disagree(
    tmp_path: Path, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat", rows=rows)

    records = CACD(str(tmp_path)).records()

    assert records.columns["identity"].tolist() == [str(row[2]) for row in sorted(rows)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the metadata is used" in caplog.text


def test_the_age_in_the_metadata_overrides_the_age_in_the_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(name, age + (age > 40), *rest) for name, age, *rest in ROWS]
    write_v5(tmp_path / "celebrity2000_meta.mat", rows=rows)

    records = CACD(str(tmp_path)).records()

    assert records.columns["age"].tolist() == [14, 15, 23, 31, 40, 43, 54]
    assert len(caplog.records) == 1
    assert "2 images have another age" in caplog.text


def test_the_warning_about_one_other_age_is_singular(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(name, age + (age == 53), *rest) for name, age, *rest in ROWS]
    write_v5(tmp_path / "celebrity2000_meta.mat", rows=rows)

    CACD(str(tmp_path)).records()

    assert "1 image has another age" in caplog.text


@pytest.mark.parametrize("place", ["data", "data/metadata", "."])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_metadata_is_found_in_the_folder_a_subfolder_or_the_parent_folder(
    tmp_path: Path, place: str, packed: bool
) -> None:
    root = tmp_path / "data"
    draw(root / "CACD2000", *NAMES)
    archive = pack(tmp_path / place / "faces.zip", *NAMES)
    write_v5(archive.with_name("celebrity2000_meta.mat"))
    source = CACD(str(archive if packed else root))

    source.prepare()

    assert "rank" in source.records().columns
    assert shades(source) == [14, 15, 23, 31, 40, 42, 53]


def test_the_nearest_metadata_is_used_and_hidden_folders_are_skipped(tmp_path: Path) -> None:
    draw(tmp_path / "data", *NAMES)
    write_v5(tmp_path / "celebrity2000_meta.mat")
    (tmp_path / "data" / ".partial").mkdir()
    write_v5(tmp_path / "data" / ".partial" / "celebrity2000_meta.mat", rows=ROWS[:1])
    in_parent = CACD(str(tmp_path / "data")).records()
    (tmp_path / "data" / "b").mkdir()
    write_v5(tmp_path / "data" / "b" / "celebrity2000_meta.mat", rows=ROWS[:2])
    in_subfolder = CACD(str(tmp_path / "data")).records()
    write_v73(tmp_path / "data" / "celebrity2000.mat", rows=ROWS[:3])
    in_folder = CACD(str(tmp_path / "data")).records()

    assert [len(records) for records in (in_parent, in_subfolder, in_folder)] == [7, 2, 3]


def test_records_from_metadata_need_no_images(tmp_path: Path) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    (tmp_path / "CACD2000.tar.gz").write_bytes(b"damaged, but not read")
    source = CACD(str(tmp_path))

    assert len(source.records()) == 7


@pytest.mark.parametrize("folder", ["", "CACD2000", "CACD2000/CACD2000", "images/part1"])
def test_images_are_found_in_any_folder(tmp_path: Path, folder: str) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    draw(tmp_path / folder, *NAMES)

    assert shades(CACD(str(tmp_path))) == [14, 15, 23, 31, 40, 42, 53]


@pytest.mark.parametrize("listed", [True, False], ids=["with metadata", "without"])
@pytest.mark.parametrize("file", ["CACD2000.tar.gz", "CACD2000.tgz", "cacd.tar", "faces.ZIP"])
@pytest.mark.parametrize("direct", [True, False], ids=["as the root", "in the root"])
def test_images_are_read_from_an_archive(tmp_path: Path, file: str, listed: bool, direct: bool) -> None:
    archive = pack(tmp_path / "data" / file.lower(), *(unicodedata.normalize("NFD", name) for name in NAMES))
    archive = archive.rename(archive.with_name(file))
    if listed:
        write_v5(archive.with_name("celebrity2000_meta.mat"))
    source: Source = CACD(str(archive if direct else archive.parent), cache=str(tmp_path / "cache"))

    source.prepare()

    assert source.records().names.tolist() == [row[0] for row in BY_NAME]
    assert ("rank" in source.records().columns) == listed
    assert shades(source) == [14, 15, 23, 31, 40, 42, 53]
    assert len(set(source.stamps(np.arange(7)).tolist())) == 7
    assert sorted(source.reading_order(np.arange(7)).tolist()) == list(range(7))


def test_unpacked_images_take_precedence_over_an_archive_and_other_pictures_do_not(tmp_path: Path) -> None:
    pack(tmp_path / "CACD2000.zip", *NAMES[:3])
    draw(tmp_path / "docs", "10.png")

    packed = CACD(str(tmp_path)).records()
    draw(tmp_path / "CACD2000", *NAMES)
    unpacked = CACD(str(tmp_path)).records()

    assert (len(packed), len(unpacked)) == (3, 7)


def test_of_several_archives_the_one_with_the_published_name_is_used(tmp_path: Path) -> None:
    pack(tmp_path / "CACD_VS.zip", *NAMES[:3])
    pack(tmp_path / "CACD2000.tar.gz", *NAMES)
    (tmp_path / "._CACD2000.tar.gz").write_bytes(b"left by macOS")

    assert len(CACD(str(tmp_path)).records()) == 7


def test_several_archives_with_similar_names_are_an_error(tmp_path: Path) -> None:
    pack(tmp_path / "CACD2000.zip", *NAMES)
    pack(tmp_path / "CACD2000 (1).tar", *NAMES)

    with pytest.raises(UserError, match=r"2 archives, CACD2000 \(1\)\.tar and CACD2000\.zip: keep only the archive"):
        CACD(str(tmp_path)).prepare()


@pytest.mark.parametrize("listed", [True, False], ids=["with metadata", "without"])
def test_decomposed_names_and_upper_case_extensions_are_recognised(tmp_path: Path, listed: bool) -> None:
    if listed:
        write_v5(tmp_path / "celebrity2000_meta.mat")
    decomposed = [unicodedata.normalize("NFD", name) for name in NAMES]
    draw(tmp_path / "CACD2000", *decomposed[:5], *(name.replace(".jpg", ".JPG") for name in decomposed[5:]))
    source = CACD(str(tmp_path))

    records = source.records()

    assert decomposed != NAMES
    assert records.names.tolist() == [row[0] for row in BY_NAME]
    assert records.columns["age"].tolist() == shades(source) == [14, 15, 23, 31, 40, 42, 53]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode elsewhere")
def test_names_that_are_not_utf8_can_be_written_to_a_list(tmp_path: Path) -> None:
    draw(tmp_path, "14_Chlo\udceb_Moretz_0001.jpg")

    unlisted = CACD(str(tmp_path)).records()
    write_v5(tmp_path / "celebrity2000_meta.mat")
    listed = CACD(str(tmp_path))

    assert unlisted.names.tolist() == ["14_Chloë_Moretz_0001.jpg"]
    assert listed.present().tolist() == [True, False, False, False, False, False, False]
    assert shades(listed) == [14]


def test_a_part_of_the_images_is_enough(tmp_path: Path) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    draw(tmp_path / "CACD2000", NAMES[5], NAMES[1], "99_Not_Listed_0001.jpg")
    source = CACD(str(tmp_path))

    source.prepare()

    assert source.present().tolist() == [True, False, True, False, False, False, False]
    assert shades(source) == [14, 23]


def test_without_metadata_each_image_is_one_row(tmp_path: Path) -> None:
    draw(tmp_path / "CACD2000", *NAMES, "99_notes.jpg")
    draw(tmp_path / "copy", NAMES[1], unicodedata.normalize("NFD", NAMES[2]))
    source = CACD(str(tmp_path))

    source.prepare()

    assert source.records().names.tolist() == [row[0] for row in BY_NAME]
    assert shades(source) == [14, 15, 23, 31, 40, 42, 53]


def test_a_person_in_two_unicode_forms_is_one_person(tmp_path: Path) -> None:
    draw(tmp_path, NAMES[1], unicodedata.normalize("NFD", NAMES[2]))

    people = CACD(str(tmp_path)).records().columns["identity"]

    assert people.tolist() == ["Chloë_Moretz"] * 2


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def test_the_error_without_images_says_what_was_expected_where(tmp_path: Path) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    nowhere = CACD(str(tmp_path / "nowhere"))

    message = error_of(CACD(str(tmp_path)).prepare)

    only = ", only the metadata celebrity2000_meta.mat"
    assert message.startswith(f"no CACD images under {tmp_path}{only}: expected {tmp_path}/CACD2000/*.jpg or ")
    for part in ("CACD2000.tar.gz", ".zip", "docs/data.md", "data.root=", "data=demo"):
        assert part in message
    elsewhere = message.replace(only, "").replace(str(tmp_path), str(nowhere.root))
    elsewhere = elsewhere.replace(".zip);", ".zip), together with celebrity2000_meta.mat;")
    assert error_of(nowhere.prepare) == error_of(nowhere.records) == elsewhere


@pytest.mark.parametrize("file", ["CACD2000.tar.gz.part", "CACD2000.tar.gz.crdownload", "Unconfirmed 7.CRDOWNLOAD"])
def test_an_unfinished_download_is_reported(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"half")

    assert f"under {tmp_path}, only {file}, an unfinished download: expected" in error_of(CACD(str(tmp_path)).prepare)


@pytest.mark.parametrize("file", ["CACD2000.7z", "cacd.TAR.BZ2", "faces.rar", "CACD2000.tar.xz"])
def test_an_unsupported_archive_is_reported(tmp_path: Path, file: str) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    (tmp_path / file).write_bytes(b"packed")

    message = error_of(CACD(str(tmp_path)).prepare)

    only = f"only the metadata celebrity2000_meta.mat and {file}, an unsupported archive (unpack it): "
    assert only in message


def test_a_broken_symbolic_link_is_reported(tmp_path: Path) -> None:
    (tmp_path / "CACD2000.tar.gz").symlink_to(tmp_path / "other-disk" / "CACD2000.tar.gz")

    inside, itself = (error_of(CACD(str(root)).prepare) for root in (tmp_path, tmp_path / "CACD2000.tar.gz"))

    assert f"under {tmp_path}, only CACD2000.tar.gz, a broken symbolic link: expected" in inside
    assert itself.startswith(f"{tmp_path / 'CACD2000.tar.gz'} is a broken symbolic link: give ")


def test_the_error_about_a_wrong_root_says_what_to_give(tmp_path: Path) -> None:
    meta = write_v5(tmp_path / "celebrity2000_meta.mat")

    metadata, missing = (error_of(CACD(str(root)).prepare) for root in (meta, tmp_path / "nothere.tar.gz"))

    assert metadata == (
        f"data.root={meta} is not a folder of images: give the folder of the images and the metadata, "
        f"data.root={tmp_path}"
    )
    assert missing.startswith(f"{tmp_path / 'nothere.tar.gz'} does not exist: give an existing archive, or ")


def test_metadata_with_a_name_in_another_case_is_read(tmp_path: Path) -> None:
    write_v5(tmp_path / "Celebrity2000_Meta.mat")
    draw(tmp_path, *NAMES)

    assert "rank" in CACD(str(tmp_path)).records().columns


def test_unfinished_metadata_is_reported_when_ages_come_from_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "celebrity2000_meta.mat.part").write_bytes(b"half")
    (tmp_path / "notes.txt.part").write_bytes(b"another")
    draw(tmp_path, *NAMES)

    assert len(CACD(str(tmp_path)).records()) == 7

    assert [record.message for record in caplog.records] == [
        "celebrity2000_meta.mat.part is an unfinished download: ages come from the file names, and ranks are unknown"
    ]


def test_a_folder_without_read_permission_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    draw(tmp_path / "CACD2000", *NAMES)
    scandir, locked = os.scandir, str(tmp_path / "CACD2000")

    def refuse(path: Any) -> Any:
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", locked)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)

    assert error_of(CACD(str(tmp_path)).prepare) == (
        f"cannot list the folder {locked} (Permission denied): check its permissions"
    )


def test_images_of_other_names_without_metadata_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, "10.png", "11.png")

    assert "has a name like those of CACD" in error_of(CACD(str(tmp_path)).records)


def test_an_impossible_age_in_a_name_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, *NAMES)
    (tmp_path / "999_Old_Person_0001.jpg").touch()

    message = error_of(CACD(str(tmp_path)).records)

    assert message.startswith(f"999_Old_Person_0001.jpg under {tmp_path} gives an age of 999 years, at most 200")


def test_images_that_are_all_unlisted_are_refused(tmp_path: Path) -> None:
    write_v5(tmp_path / "celebrity2000_meta.mat")
    draw(tmp_path, "10.png", "11.png")

    message = error_of(CACD(str(tmp_path)).prepare)

    assert "lists none of the 2 images" in message
    assert "have names like '10.png' instead of 14_Chloë_Moretz_0001.jpg" in message


def test_a_changed_image_file_changes_its_stamp(tmp_path: Path) -> None:
    draw(tmp_path, *NAMES)
    rows = np.arange(len(NAMES))
    before = CACD(str(tmp_path)).stamps(rows)

    (tmp_path / NAMES[1]).write_bytes(image("99"))  # 14_Chloë_Moretz_0001.jpg, the first by name

    after = CACD(str(tmp_path)).stamps(rows)
    assert (before != after).tolist() == [True, False, False, False, False, False, False]


@pytest.mark.ci
@pytest.mark.data
def test_the_real_parts_have_the_published_sizes(test_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = CACD(str(test_data / "cacd")).records()

    part, people = records.columns["part"], records.columns["identity"]
    assert np.unique(part, return_counts=True)[1].tolist() == [10_571, 145_275, 7_600]
    assert [len(np.unique(people[part == name])) for name in ("train", "val", "test")] == [1_800, 80, 120]
    assert len(np.unique(people)) == 2_000
    assert "Robin_Williams" in people
    assert records.names.tolist() == sorted(records.names.tolist())
    assert not caplog.records


@pytest.mark.ci
@pytest.mark.data
def test_the_real_decades_have_the_known_counts(real_cacd: Records) -> None:
    target = make_target(real_cacd, "decade")

    assert dict(zip(target.label_names, np.bincount(target.labels).tolist(), strict=True)) == {
        "10s": 7_057,
        "20s": 39_069,
        "30s": 43_104,
        "40s": 40_344,
        "50s": 30_960,
        "60s": 2_912,
    }
    assert make_target(real_cacd, "age").num_labels == 49


@pytest.mark.ci
@pytest.mark.data
def test_both_formats_and_the_file_names_agree_on_the_real_names(
    test_data: Path, real_cacd: Records, tmp_path: Path
) -> None:
    fields = read_metadata(test_data / "cacd" / "celebrity2000_meta.mat")
    odd = [i for i, name in enumerate(fields["name"].tolist()) if not name.isascii()]
    some = np.union1d(np.arange(0, 163_446, 163), odd[::2])
    rows = list(zip(*(fields[key][some].tolist() for key in ("name", *FIELDS)), strict=True))
    for way in ("v5", "v7.3", "names"):
        (tmp_path / way).mkdir()
    write_v5(tmp_path / "v5" / "celebrity2000_meta.mat", rows=rows)
    write_v73(tmp_path / "v7.3" / "celebrity2000.mat", rows=rows)
    for row in rows:
        (tmp_path / "names" / row[0]).touch()

    v5, v73, names = (CACD(str(tmp_path / way)).records() for way in ("v5", "v7.3", "names"))

    real = real_cacd.take(np.flatnonzero(np.isin(real_cacd.names, fields["name"][some])))
    assert len(real) == len(some) > 2_000
    assert_same(real, v5, *real.columns)
    assert_same(real, v73, *real.columns)
    assert_same(real, names, "age", "identity")
