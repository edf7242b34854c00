"""The command audit writes audit.json, audit.png and split.csv, without an image."""

import contextlib
import csv
import hashlib
import json
import logging
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import agebench.report.leak  # noqa: F401  # once here, instead of in the process that draws each picture
from agebench.audit import audit, folder_name
from agebench.data.sources.demo import write_demo
from agebench.errors import UserError

Verb = Callable[..., dict[str, Any]]


@pytest.fixture
def verb(compose_config, tmp_path, caplog) -> Verb:
    """Return a function that runs an audit with the given overrides, into tmp_path/out."""
    caplog.set_level(logging.INFO)

    def run(*overrides: str) -> dict[str, Any]:
        return audit(compose_config(f"hydra.runtime.output_dir={tmp_path}/out", *overrides, name="audit"))

    return run


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Return the overrides for a table of 200 images of 20 people, without image files. A person has two ages."""
    path = tmp_path / "faces.csv"
    rows = [f"{i}.png,{20 + i % 20 + i // 20 % 2},p{i % 20}" for i in range(200)]
    path.write_text("\n".join(["path,label,identity", *rows]))
    return f"data=table data.root={path} data.source.label=age data.target=age"


def test_a_table_without_images_is_audited(verb, table, tmp_path, caplog) -> None:
    found = verb(*table.split())

    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written == found
    assert found["protocol"] == "table/random/age"
    assert found["listed"]
    assert {path.name for path in (tmp_path / "out" / ".hydra").iterdir()} == {
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    }
    assert [found["splits"][part]["images"] for part in ("train", "val", "test")] == [160, 20, 20]
    assert found["test_identity_in_train"] == 1
    assert found["lookup_mae"] <= 0.7 < found["median_mae"]
    assert "no image of data=table is available: all 200 images that it lists are audited" in caplog.text
    with Image.open(tmp_path / "out" / "audit.png") as picture:
        assert picture.width > 1000
    with (tmp_path / "out" / "split.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    parts = [row["part"] for row in rows]
    assert {part: parts.count(part) for part in set(parts)} == {"train": 160, "val": 20, "test": 20}
    tested = "\n".join(sorted(row["name"] for row in rows if row["part"] == "test"))
    assert found["split_sha"] == hashlib.sha256(tested.encode()).hexdigest()[:16]


@pytest.mark.parametrize("root", ["", " data.root=/nowhere.csv"])
def test_the_process_that_draws_ends_with_the_audit(verb, table, root) -> None:
    with contextlib.suppress(UserError):
        verb(*f"{table}{root}".split())

    for process in multiprocessing.active_children():
        process.join(20)
    assert multiprocessing.active_children() == []


def test_the_console_has_an_aligned_table_and_the_verdict(verb, table, caplog) -> None:
    found = verb(*table.split())

    lines = [record.message for record in caplog.records if record.name == "agebench.audit"]
    start = next(i for i, line in enumerate(lines) if line.startswith("  part"))
    assert [line.split()[0] for line in lines[start : start + 4]] == ["part", "train", "val", "test"]
    assert len({len(line) for line in lines[start : start + 4]}) == 1
    assert lines[start + 3].split()[1:3] == ["20", str(found["splits"]["test"]["identities"])]
    assert any(line.split()[-2:] == [f"{found['lookup_mae']:.3f}", f"{found['lookup_accuracy']:.3f}"] for line in lines)
    assert found["verdict"] in lines


def test_a_split_by_identity_is_clean_and_has_no_lookup_metrics(verb, table, caplog) -> None:
    found = verb(*table.split(), "data/split=identity", "data.target=decade")

    assert found["protocol"] == "table/identity/decade"
    assert found["test_identity_in_train"] == 0
    assert found["verdict"].startswith("clean: ")
    assert found["lookup_mae"] == found["median_mae"]
    cells = {r.message.strip().partition("   ")[0]: r.message.split()[-2:] for r in caplog.records if r.message.strip()}
    assert cells["identity looked up"] == ["-", "-"]
    middle = cells["always the median or most common label"]
    assert middle == [f"{found['median_mae']:.3f}", f"{found['majority_accuracy']:.3f}"]


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("data/split=random", "random-age"),
        ("data/split=kfold data.split.k=4 data.split.fold=2 data.target=decade", "kfold4-2-decade"),
        ("data/split=identity data.target=bins data.bins=[22,30.5]", "identity-bins-22-30.5"),
        ("data/split=lecture data.split.per_label=60 data.per_class=3 data.limit=50", "lecture-per3-limit50-age"),
        ("data/split=column data.split.train={0}/a.txt data.split.test={0}/b+1.txt", "column-a-b-1-age"),
    ],
)
def test_the_folder_name_contains_the_complete_protocol(verb, table, compose_config, tmp_path, line, folder) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"{i}.png" for i in range(90)))
    (tmp_path / "b+1.txt").write_text("\n".join(f"{i}.png" for i in range(90, 200)))
    overrides = [*table.split(), *line.format(tmp_path).split()]

    found = verb(*overrides)

    assert folder_name(compose_config(*overrides, name="audit").data) == folder
    assert found["protocol"].partition("/")[2].replace("/", "-").replace("+", "-") == folder


def test_an_invalid_config_has_the_folder_name_audit(compose_config) -> None:
    config = compose_config("data=demo", "data.target=bins", "data.bins=[a,b]", name="audit")

    assert folder_name(config.data) == "audit"


def test_only_available_images_are_audited_unless_listed_is_true(verb, table, tmp_path) -> None:
    for i in range(100):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")

    some, every = verb(*table.split()), verb(*table.split(), "listed=true")

    assert (some["listed"], sum(has["images"] for has in some["splits"].values())) == (False, 100)
    assert (every["listed"], sum(has["images"] for has in every["splits"].values())) == (True, 200)
    assert some["split_sha"] != every["split_sha"]


def test_images_are_never_opened(verb, table, tmp_path) -> None:
    for i in range(200):
        (tmp_path / f"{i}.png").write_bytes(b"no image at all")

    found = verb(*table.split())

    assert not found["listed"]
    assert sum(has["images"] for has in found["splits"].values()) == 200


def test_without_identities_the_verdict_is_unknown(verb) -> None:
    found = verb("data=digits")

    assert found["test_identity_in_train"] is None
    assert found["lookup_accuracy"] is None
    assert 0.05 < found["majority_accuracy"] < 0.2
    assert found["verdict"].startswith("leak unknown: ")


@pytest.mark.parametrize("value", ["1", "null", "yes-please"])
def test_listed_is_true_or_false(verb, value) -> None:
    with pytest.raises(UserError, match="listed must be true or false"):
        verb(f"listed={value}")


def test_a_missing_table_raises_without_a_warning(verb, tmp_path, caplog) -> None:
    with pytest.raises(UserError, match=r"no table at .*nothing\.csv"):
        verb("data=table", f"data.root={tmp_path}/nothing.csv")

    assert not [record for record in caplog.records if record.levelname == "WARNING"]  # it would repeat the error


def test_a_failed_audit_keeps_the_files_in_its_folder(verb, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()

    with pytest.raises(UserError, match="listed must be true or false"):
        verb("listed=1")

    assert (tmp_path / "out" / "notes.txt").exists()


def test_cacd_without_files_raises_with_the_needed_file(verb, tmp_path) -> None:
    with pytest.raises(UserError, match=r"celebrity2000_meta\.mat"):
        verb("data=cacd", f"data.root={tmp_path}")


@pytest.fixture
def copies(tmp_path: Path) -> str:
    """Return the overrides for a table of four images. The first is in train, and its copy in test is another age."""
    for name, colour in {"a": 1, "b": 2, "c": 3, "d": 1}.items():
        Image.new("L", (4, 4), colour).save(tmp_path / f"{name}.png")
    rows = ["a.png,20,train", "b.png,20,train", "c.png,21,val", "d.png,21,test"]
    (tmp_path / "copies.csv").write_text("\n".join(["path,age,split", *rows]))
    return f"data=table data.root={tmp_path}/copies.csv data.target=age data/split=column"


def test_duplicates_are_listed_and_in_the_verdict(verb, copies, tmp_path, caplog) -> None:
    found = verb(*copies.split(), "duplicates=true")

    assert found["duplicates"] == {
        "images": 2,
        "groups": 1,
        "pairs": 1,
        "pairs_across": 1,
        "test_in_train": 1,
        "val_in_train": 0,
        "groups_of_several_labels": 1,
    }
    assert found["verdict"].startswith(
        "leaks: 1 of the 1 test images are identical to a train image; by identity, leak"
    )
    assert (
        "2 images have an identical one (groups: 1, with several labels: 1; pairs: 1, in two parts: 1)" in caplog.text
    )
    with (tmp_path / "out" / "duplicates.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.reader(lines))
    assert rows == [
        ["group", "name", "part", "identity", "target"],
        ["1", "a.png", "train", "", "20"],
        ["1", "d.png", "test", "", "21"],
    ]


@pytest.mark.parametrize(
    ("parts", "start"),
    [
        ("train val test val", "val leaks: 1 of the 2 val images are identical to a train image; by identity, leak"),
        ("val train train test", "val and test share images (pairs of identical images: 1); by identity, leak unknown"),
    ],
)
def test_identical_images_of_two_parts_are_in_the_verdict(verb, copies, tmp_path, parts, start) -> None:
    rows = [f"{name}.png,20,{part}" for name, part in zip("abcd", parts.split(), strict=True)]
    (tmp_path / "copies.csv").write_text("\n".join(["path,age,split", *rows]))

    found = verb(*copies.split(), "duplicates=true")

    assert found["verdict"].startswith(start)


def test_the_ages_and_the_groups_are_counted(verb, tmp_path, caplog) -> None:
    rows = ["a.png,20,f,train", "b.png,199,m,train", "c.png,1,f,val", "d.png,34,,test"]
    (tmp_path / "faces.csv").write_text("\n".join(["path,age,sex,split", *rows]))
    line = f"data=table data.root={tmp_path}/faces.csv data.target=age data/split=column data.groups=[sex]"

    found = verb(*line.split())

    assert found["ages"] == {"images": 4, "youngest": 1, "oldest": 199, "median": 27}
    assert found["groups"] == {
        "sex": {
            "f": {"train": 1, "val": 1, "test": 0},
            "m": {"train": 1, "val": 0, "test": 0},
            "unknown": {"train": 0, "val": 0, "test": 1},
        }
    }
    assert "  ages: 1 to 199 years, median 27 (4 images)" in caplog.messages
    assert "  sex: f 2, m 1, unknown 1" in caplog.messages
    assert "implausible age (above 122 years): check b.png (199 years)" in caplog.messages


def test_files_are_not_compared_by_default(verb, copies, tmp_path) -> None:
    verb(*copies.split(), "duplicates=true")
    found = verb(*copies.split())

    assert found["duplicates"] is None
    assert found["verdict"].startswith("leak unknown: ")
    assert not (tmp_path / "out" / "duplicates.csv").exists()


def test_duplicates_need_the_images(verb, table) -> None:
    with pytest.raises(UserError, match="duplicates=true compares the images, but no image of data=table is available"):
        verb(*table.split(), "duplicates=true")


def test_a_split_for_tests_only_is_audited(verb, table, tmp_path) -> None:
    found = verb(*table.split(), "data/split=test_only")

    assert found["protocol"] == "table/test_only/age"
    assert [found["splits"][part]["images"] for part in ("train", "val", "test")] == [0, 0, 200]
    assert found["verdict"].startswith("no train images: ")
    assert (tmp_path / "out" / "audit.png").exists()


@pytest.fixture
def cacd(tmp_path: Path) -> Path:
    """Return a folder with only the metadata of 300 faces of 30 people."""
    root = tmp_path / "cacd"
    write_demo(root, people=30, images=300, seed=0)
    shutil.rmtree(root / "CACD2000")
    return root


@pytest.mark.ci
def test_missing_images_and_an_unreadable_archive_have_different_messages(verb, cacd, caplog) -> None:
    absent = verb("data=cacd", f"data.root={cacd}")
    first_log = caplog.text
    caplog.clear()
    (cacd / "CACD2000.tar.gz").write_bytes(b"\x1f\x8b cut short")
    damaged = verb("data=cacd", f"data.root={cacd}")

    assert absent == damaged
    assert "no image of data=cacd is available: all 300 images that it lists are audited" in first_log
    second = "it is unknown which images of data=cacd are available: all 300 images that it lists are audited"
    assert second in caplog.text
    assert "no image of data=cacd" not in caplog.text
    assert any("CACD2000.tar.gz" in r.message for r in caplog.records if r.levelname == "WARNING")


@pytest.mark.data
def test_cacd_is_audited_from_its_metadata_alone(verb, test_data, caplog) -> None:
    found = verb("data=cacd", f"data.root={test_data}/cacd")

    assert found["protocol"] == "cacd/official/decade"
    assert [found["splits"][part]["images"] for part in ("train", "val", "test")] == [145_275, 7_600, 10_571]
    assert found["verdict"] == "clean: none of the 120 identities of test is in train"
    assert "no image of data=cacd is available: all 163,446 images that it lists are audited" in caplog.text
