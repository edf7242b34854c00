"""The demo has the format of CACD, is reproducible, and never replaces other data."""

import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from agebench.data.sources import demo
from agebench.data.sources.cacd import Demo
from agebench.data.sources.demo import Recipe, draw_people, draw_rows, write_demo
from agebench.data.sources.drawn_faces.person import sample_face, sample_signs
from agebench.errors import UserError
from agebench.testing import check_source

TINY: dict[str, int] = {"people": 4, "images": 24, "seed": 0, "size": 32}
# As in the published celebrity2000_meta.mat.
PHOTO_FIELDS = {
    "age": "uint8",
    "identity": "uint16",
    "year": "uint16",
    "feature": "uint8",
    "rank": "uint8",
    "lfw": "uint8",
    "birth": "uint16",
    "name": "object",
}
PERSON_FIELDS = {"name": "object", "identity": "int32", "birth": "int32", "rank": "int32", "lfw": "int32"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo(root, **TINY)
    return root


def test_demo_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    check_source(Demo, root=str(tmp_path), people=4, images=24)


def load(root: Path) -> dict[str, Any]:
    return dict(scipy.io.loadmat(root / "celebrity2000_meta.mat"))


def photo_columns(root: Path) -> dict[str, Any]:
    photos = load(root)["celebrityImageData"][0, 0]
    columns = {key: photos[key].ravel().astype(np.int64) for key in PHOTO_FIELDS if key not in ("feature", "name")}
    return columns | {"name": np.array([cell[0] for cell in photos["name"][:, 0]])}


def file_bytes(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def assert_structures_are_cacds(mat: dict[str, Any], *, photos: int, people: int) -> None:
    for key, fields, rows in (
        ("celebrityImageData", PHOTO_FIELDS, photos),
        ("celebrityData", PERSON_FIELDS, people),
    ):
        structure = mat[key]
        assert structure.shape == (1, 1)
        assert structure.dtype.names == tuple(fields)
        for name, dtype in fields.items():
            values = structure[name][0, 0]
            assert (name, str(values.dtype)) == (name, dtype)
            assert values.shape == ((0, 0) if name == "feature" else (rows, 1))
        cell = structure["name"][0, 0][0, 0]
        assert cell.shape == (1,)
        assert cell.dtype.kind == "U"


def test_the_structures_have_the_documented_fields_types_and_shapes(tiny: Path) -> None:
    mat = load(tiny)

    assert mat["__version__"] == "1.0"
    assert_structures_are_cacds(mat, photos=24, people=4)


@pytest.mark.data
def test_the_real_file_has_the_structure_of_the_demo(test_data: Path) -> None:
    mat = load(test_data / "cacd")

    assert_structures_are_cacds(mat, photos=163446, people=2000)


def test_the_age_is_year_minus_birth_and_is_in_the_file_name(tiny: Path) -> None:
    columns = photo_columns(tiny)
    people = load(tiny)["celebrityData"][0, 0]

    np.testing.assert_array_equal(columns["age"], columns["year"] - columns["birth"])
    assert columns["year"].min() >= 2004
    assert columns["year"].max() <= 2013
    for name, age, identity in zip(columns["name"], columns["age"], columns["identity"], strict=True):
        match = re.fullmatch(r"(\d\d)_(.+)_(\d{4})\.jpg", name)
        assert match is not None
        assert int(match[1]) == age
        assert match[2] == people["name"][identity - 1, 0][0]


def test_a_person_has_one_birth_and_one_rank_in_both_structures(tiny: Path) -> None:
    columns = photo_columns(tiny)
    people = load(tiny)["celebrityData"][0, 0]

    np.testing.assert_array_equal(people["identity"].ravel(), [1, 2, 3, 4])
    assert set(columns["identity"]) == {1, 2, 3, 4}
    for key in ("birth", "rank", "lfw"):
        np.testing.assert_array_equal(columns[key], people[key].ravel()[columns["identity"] - 1])


def test_the_folder_contains_only_the_listed_photos_as_rgb_jpegs(tiny: Path) -> None:
    files = sorted((tiny / "CACD2000").iterdir())

    assert sorted(file.name for file in files) == sorted(photo_columns(tiny)["name"])
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))


def test_the_full_demo_covers_all_ages_in_every_official_part() -> None:
    full = Recipe(people=750, images=3000, seed=0, size=250)

    people = draw_people(full)
    rows = draw_rows(full, people)

    assert len(rows["name"]) == 3000 == len(set(rows["name"]))
    assert (np.diff(rows["identity"]) >= 0).all()
    assert (rows["age"].min(), rows["age"].max()) == (14, 62)
    assert people["rank"].min() == 1
    assert people["rank"].max() == 50
    for low, high, persons in ((1, 2, 75), (3, 5, 112), (6, 50, 563)):
        part = (rows["rank"] >= low) & (rows["rank"] <= high)
        counts = np.bincount(rows["age"][part] // 10, minlength=7)[1:]
        assert len(set(rows["identity"][part])) == persons
        assert counts.min() >= 0.03 * part.sum()
        assert counts.max() <= 0.3 * part.sum()
    for identity in range(1, 751):
        own = rows["identity"] == identity
        assert len(set(rows["rank"][own])) == 1
        assert 2 <= own.sum() <= 12


def test_a_person_with_many_photos_has_one_in_every_year() -> None:
    old = Recipe(people=150, images=3000, seed=0, size=250)

    rows = draw_rows(old, draw_people(old))

    for identity in range(1, 151):
        assert set(rows["year"][rows["identity"] == identity]) == set(range(2004, 2014))


def test_numbers_increase_with_gaps_for_each_person_and_age() -> None:
    full = Recipe(people=30, images=1500, seed=3, size=250)

    rows = draw_rows(full, draw_people(full))

    groups: dict[tuple[int, int], list[int]] = {}
    for identity, age, number in zip(rows["identity"], rows["age"], rows["number"], strict=True):
        groups.setdefault((int(identity), int(age)), []).append(int(number))
    assert all(np.all(np.diff(numbers) > 0) for numbers in groups.values())
    gapless = sum(numbers == list(range(1, len(numbers) + 1)) for numbers in groups.values())
    assert 0 < gapless < len(groups)


def test_names_are_unique_composed_and_difficult_for_file_systems() -> None:
    names = draw_people(Recipe(people=1152, images=1152, seed=0, size=250))["name"].tolist()

    assert len(set(names)) == 1152
    assert all(unicodedata.is_normalized("NFC", name) and " " not in name for name in names)
    for few in (names[:12], names):
        assert sum(not name.isascii() for name in few) >= 3
        assert sum("'" in name for name in few) >= 2


def test_two_writes_are_identical_byte_for_byte(tiny: Path, tmp_path: Path) -> None:
    write_demo(tmp_path, **TINY)

    assert file_bytes(tmp_path) == file_bytes(tiny)


def test_another_seed_draws_other_photos(tiny: Path, tmp_path: Path) -> None:
    write_demo(tmp_path, **{**TINY, "seed": 1})

    assert not set(file_bytes(tmp_path).values()) & {photo.read_bytes() for photo in (tiny / "CACD2000").iterdir()}


def test_a_complete_demo_is_not_drawn_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "draw_photo", lambda *_: pytest.fail("a complete demo was drawn again"))

    write_demo(tiny, **TINY)


def test_other_arguments_replace_an_older_demo(tmp_path: Path) -> None:
    write_demo(tmp_path, **TINY)

    write_demo(tmp_path, **{**TINY, "images": 20, "size": 16})

    assert len(list((tmp_path / "CACD2000").iterdir())) == 20 == len(photo_columns(tmp_path)["name"])


@pytest.mark.parametrize(
    "foreign",
    ["celebrity2000_meta.mat", "CACD2000/53_Robin_Williams_0001.jpg", "CACD2000.tar.gz", "53_Robin_Williams_0001.jpg"],
)
def test_other_files_are_never_changed(tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_bytes(b"other data")

    with pytest.raises(UserError, match="was not written by the demo"):
        write_demo(tmp_path, **TINY)

    found = {name: content for name, content in file_bytes(tmp_path).items() if not name.startswith(".")}
    assert found == {foreign: b"other data"}


def test_a_demo_with_an_added_photo_is_not_replaced(tmp_path: Path) -> None:
    write_demo(tmp_path, **TINY)
    (tmp_path / "CACD2000" / "mine.jpg").write_bytes(b"other data")

    with pytest.raises(UserError, match="was not written by the demo"):
        write_demo(tmp_path, **{**TINY, "seed": 1})

    assert (tmp_path / "CACD2000" / "mine.jpg").read_bytes() == b"other data"


def test_a_call_killed_while_drawing_leaves_no_complete_demo(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, drawn = demo.draw_photo, []

    def interrupt_fifth(*args: Any) -> Image.Image:
        drawn.append(1)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(demo, "draw_photo", interrupt_fifth)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path, **TINY)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]

    monkeypatch.undo()
    write_demo(tmp_path, **TINY)

    assert file_bytes(tmp_path) == file_bytes(tiny)


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_call_killed_while_moving_files_leaves_no_complete_demo(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    write_demo(tmp_path, **{**TINY, "seed": 1})
    replace, moves = Path.replace, []

    def killed(self: Path, target: Path) -> Path:
        if len(moves) == moved:
            raise KeyboardInterrupt
        moves.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path, **TINY)
    monkeypatch.undo()
    assert not (tmp_path / "demo.json").exists()

    write_demo(tmp_path, **TINY)

    assert file_bytes(tmp_path) == file_bytes(tiny)


def test_a_demo_with_a_missing_photo_is_drawn_again(tiny: Path, tmp_path: Path) -> None:
    write_demo(tmp_path, **TINY)
    next((tmp_path / "CACD2000").iterdir()).unlink()

    write_demo(tmp_path, **TINY)

    assert file_bytes(tmp_path) == file_bytes(tiny)


@pytest.mark.parametrize(
    "wrong", [{"people": 2}, {"people": 1153, "images": 2000}, {"images": 3}, {"seed": -1}, {"size": 8}]
)
def test_the_error_about_a_number_out_of_range_gives_the_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    name = next(iter(wrong))

    with pytest.raises(UserError, match=rf"needs {name} from \d+ to \d+, got {wrong[name]}"):
        write_demo(tmp_path / "demo", **{**TINY, **wrong})

    assert not (tmp_path / "demo").exists()


def test_signs_of_age_increase_with_age_and_differ_between_people() -> None:
    rng = np.random.default_rng(0)
    faces = [sample_face(0, identity, long_hair=identity % 2 == 0) for identity in range(1, 61)]

    lines = {age: np.array([sample_signs(face, age, rng).lines for face in faces]) for age in (16, 30, 45, 62)}

    means = [values.mean() for values in lines.values()]
    assert (np.diff(means) > 0.1).all()
    assert lines[45].std() > 0.05


def test_drawing_needs_no_torch() -> None:
    code = "import agebench.data.sources.demo, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
