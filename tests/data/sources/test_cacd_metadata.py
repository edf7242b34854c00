"""The metadata of CACD in both MATLAB formats, valid and damaged."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from agebench.data.sources.cacd_metadata import NAME, read_metadata
from agebench.errors import UserError

FIELDS = ("age", "identity", "year", "rank", "lfw", "birth")
KINDS = (np.uint8, np.uint16, np.float64, np.uint8, np.float64, np.float64)

# Name and FIELDS, not in alphabetical order.
ROWS: list[tuple[Any, ...]] = [
    ("53_Robin_Williams_0001.jpg", 53, 1, 2004, 1, 1, 1951),
    ("14_Chloë_Moretz_0001.jpg", 14, 2, 2011, 3, 0, 1997),
    ("15_Chloë_Moretz_0002.jpg", 15, 2, 2012, 3, 0, 1997),
    ("42_Conan_O'Brien_0007.jpg", 42, 3, 2005, 5, 0, 1963),
    ("40_Aaron_Eckhart_0011.jpg", 40, 4, 2008, 6, 0, 1968),
    ("23_Zoë_Saldana_0003.jpg", 23, 5, 2001, 50, 1, 1978),
    ("31_Aidan_Turner_0001.jpg", 31, 6, 2013, 2, 0, 1982),
]
NAMES = [row[0] for row in ROWS]


def write_v5(path: Path, *, rows: Sequence[Any] = ROWS, compressed: bool = True, **instead: Any) -> Path:
    """Write MATLAB 5 metadata; a given field replaces that of the rows, or is left out if it is None."""
    fields: dict[str, Any] = {
        field: np.array([[row[i + 1]] for row in rows], dtype=kind)
        for i, (field, kind) in enumerate(zip(FIELDS, KINDS, strict=True))
    }
    fields |= {"feature": np.empty((0, 0)), "name": cells(*(row[0] for row in rows))} | instead
    kept = {field: values for field, values in fields.items() if values is not None}
    scipy.io.savemat(path, {"celebrityImageData": kept}, do_compression=compressed)
    return path


def cells(*values: Any) -> Any:
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


def write_v73(path: Path, *, rows: Sequence[Any] = ROWS, chunked: bool = False, **instead: Any) -> Path:
    """Write metadata as save -v7.3 of MATLAB: columns are (1, N) float64, cells refer to (L, 1) UTF-16 arrays."""
    with h5py.File(path, "w", userblock_size=512) as file:
        data, refs = file.create_group("celebrityImageData"), file.create_group("#refs#")
        data.attrs["MATLAB_class"] = np.bytes_("struct")
        columns = {field: np.array([[row[i + 1] for row in rows]], dtype=np.float64) for i, field in enumerate(FIELDS)}
        for field, values in (columns | {field: instead[field] for field in FIELDS if field in instead}).items():
            if values is not None:
                data[field] = values
        data.create_dataset("feature", shape=(2**20, 2**20), chunks=(64, 64), dtype=np.float32)  # 4 TiB, never read
        references = np.empty((1, len(rows)), dtype=h5py.ref_dtype)
        for i, row in enumerate(rows):
            units = np.frombuffer(row[0].encode("utf-16-le", "surrogatepass"), dtype=np.uint16)[:, None]
            name = refs.create_dataset(f"c{i}", data=units, chunks=units.shape if chunked else None)
            name.attrs["MATLAB_class"] = np.bytes_("char")
            references[0, i] = name.ref
        if "name" in instead:
            if instead["name"] is not None:
                data["name"] = instead["name"](file) if callable(instead["name"]) else instead["name"]
        else:
            data.create_dataset("name", data=references, dtype=h5py.ref_dtype)
    raw = bytearray(path.read_bytes())
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64"
    raw[:128] = header.ljust(124) + b"\x00\x02IM"
    path.write_bytes(raw)
    return path


def write_tree(path: Path, **content: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values
    return path


def rename(name: str) -> list[tuple[Any, ...]]:
    return [(name, *ROWS[0][1:]), *ROWS[1:]]


def same_reference_of(what: str) -> Callable[[Any], Any]:
    return lambda file: np.array([[file[what].ref] * len(ROWS)], dtype=h5py.ref_dtype)


def no_reference(file: Any) -> Any:
    return np.array([[h5py.Reference()] * len(ROWS)], dtype=h5py.ref_dtype)


@pytest.mark.parametrize(
    "write",
    [
        write_v5,
        lambda path: write_v5(path, compressed=False),
        write_v73,
        lambda path: write_v73(path, chunked=True),
    ],
    ids=["v5", "v5 uncompressed", "v7.3", "v7.3 in chunks"],
)
def test_both_matlab_formats_give_every_field_of_every_row(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    fields = read_metadata(write(tmp_path / "meta.mat"))

    assert fields.keys() == {"name", *FIELDS}
    assert fields["name"].tolist() == NAMES
    for i, field in enumerate(FIELDS):
        assert fields[field].tolist() == [row[i + 1] for row in ROWS]
        assert fields[field].dtype == np.int64


def test_matlab_5_is_read_without_importing_h5py(tmp_path: Path) -> None:
    path = write_v5(tmp_path / "meta.mat")
    code = "import sys; from agebench.data.sources.cacd_metadata import read_metadata; "
    code += (
        f"fields = read_metadata(__import__('pathlib').Path({str(path)!r})); print(len(fields['age']), *sys.modules)"
    )

    count, *loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert count == "7"
    assert "h5py" not in loaded


@pytest.mark.parametrize("write", [write_v5, write_v73], ids=["v5", "v7.3"])
def test_names_are_in_nfc(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "meta.mat", rows=rename("14_Chloe\u0308_Moretz_0009.jpg"))

    assert read_metadata(path)["name"][0] == "14_Chlo\u00eb_Moretz_0009.jpg"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["v5", "v5 uncompressed", "v7.3"])
def test_metadata_that_is_cut_short_must_be_downloaded_again(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "meta.mat"
    if kind == "v7.3":
        write_v73(path)
    else:
        write_v5(path, compressed=kind == "v5")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])

    with pytest.raises(UserError, match=r"cannot read .*meta\.mat.*download it again"):
        read_metadata(path)


def test_damaged_metadata_must_be_downloaded_again(tmp_path: Path) -> None:
    path = write_v5(tmp_path / "meta.mat")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)

    with pytest.raises(UserError, match="download it again"):
        read_metadata(path)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda p: p.touch(), "download it again"),
    "a web page": (lambda p: p.write_text("<html>" + "not found " * 100), "download it again"),
    "a picture": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4), "download it again"),
    "a folder": (lambda p: p.mkdir(), "download it again"),
    "a missing file": (lambda p: None, "download it again"),
    "v5 of something else": (lambda p: scipy.io.savemat(p, {"x": np.eye(3)}), "no struct celebrityImageData"),
    "v5 with a matrix": (lambda p: scipy.io.savemat(p, {"celebrityImageData": np.eye(3)}), "no struct"),
    "v5 with two structs": (
        lambda p: scipy.io.savemat(p, {"celebrityImageData": np.zeros((2, 1), dtype=[("age", "f8"), ("name", "f8")])}),
        "no struct",
    ),
    "v5 without rank": (lambda p: write_v5(p, rank=None), "celebrityImageData has no field rank"),
    "v5 without name and birth": (lambda p: write_v5(p, birth=None, name=None), "has no field birth or name"),
    "v5 with fewer names": (lambda p: write_v5(p, name=cells(*NAMES[:5])), r"differ in length, \[5, 7\]"),
    "v5 with more ages": (lambda p: write_v5(p, age=np.full((9, 1), 30)), r"differ in length, \[7, 9\]"),
    "v5 with no rows": (lambda p: write_v5(p, rows=[]), "field age is not a list of numbers"),
    "v5 with half an age": (lambda p: write_v5(p, age=np.full((7, 1), 30.5)), "field age contains 30.5"),
    "v5 with an age in words": (lambda p: write_v5(p, age=cells(*["old"] * 7)), "field age is not a list of numbers"),
    "v5 with an age of 999": (
        lambda p: write_v5(p, age=np.array([[53, 14, 15, 999, 40, 23, 31]]).T),
        r"42_Conan_O'Brien_0007\.jpg an age of 999 years, at most 200 are accepted",
    ),
    "v5 with a rank of nan": (lambda p: write_v5(p, rank=np.full((7, 1), np.nan)), "field rank contains nan"),
    "v5 with a birth out of bounds": (lambda p: write_v5(p, birth=np.full((7, 1), 1e300)), "field birth contains 1e"),
    "v5 with numbers for names": (lambda p: write_v5(p, name=cells(*range(7))), "lists the name '0'"),
    "v5 with a matrix of names": (lambda p: write_v5(p, name=np.eye(7)), "field name is not a list of texts"),
    "v5 with an empty name": (lambda p: write_v5(p, rows=rename("")), "lists the name ''"),
    "v5 with a path": (lambda p: write_v5(p, rows=rename("../../passwd.jpg")), "lists the name '../../passwd.jpg'"),
    "v5 with a name twice": (
        lambda p: write_v5(p, rows=rename(NAMES[1])),
        "lists 14_Chloë_Moretz_0001.jpg more than once",
    ),
    "v5 with a name in both forms": (
        lambda p: write_v5(p, rows=rename("14_Chloe\u0308_Moretz_0001.jpg")),
        "lists 14_Chloë_Moretz_0001.jpg more than once",
    ),
    "v7.3 of something else": (lambda p: write_tree(p, x=np.eye(3)), "no struct celebrityImageData"),
    "v7.3 with a matrix": (lambda p: write_tree(p, celebrityImageData=np.eye(3)), "no struct"),
    "v7.3 without year": (lambda p: write_v73(p, year=None), "has no field year"),
    "v7.3 without name": (lambda p: write_v73(p, name=None), "has no field name"),
    "v7.3 with numbers for names": (lambda p: write_v73(p, name=np.ones((1, 7))), "field name is not a list of texts"),
    "v7.3 with an age of infinity": (lambda p: write_v73(p, age=np.full((1, 7), np.inf)), "field age contains inf"),
    "v7.3 with an age in words": (lambda p: write_v73(p, age=[b"old"] * 7), "field age is not a list of numbers"),
    "v7.3 with an age of -5": (
        lambda p: write_v73(p, age=np.array([[53, -5, 15, 42, 40, 23, 31]])),
        r"14_Chloë_Moretz_0001\.jpg an age of -5 years",
    ),
    "v7.3 with fewer ages": (lambda p: write_v73(p, age=np.ones((1, 2))), r"differ in length, \[2, 7\]"),
    "v7.3 with null references for names": (lambda p: write_v73(p, name=no_reference), "download it again"),
    "v7.3 with names that refer to a group": (lambda p: write_v73(p, name=same_reference_of("#refs#")), "is not text"),
    "v7.3 with names that refer to numbers": (
        lambda p: write_v73(p, name=same_reference_of("celebrityImageData/age")),
        "download it again",
    ),
    "v7.3 with one name for all": (
        lambda p: write_v73(p, name=same_reference_of("#refs#/c0")),
        "Williams_0001.jpg more than",
    ),
    "v7.3 with half a letter": (lambda p: write_v73(p, rows=rename("14_\ud800_0001.jpg")), "utf-16"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_metadata_is_reported_in_one_sentence(tmp_path: Path, kind: str) -> None:
    write, reason = BAD[kind]
    write(tmp_path / "meta.mat")

    with pytest.raises(UserError, match=reason) as caught:
        read_metadata(tmp_path / "meta.mat")

    message = str(caught.value)
    assert message.startswith(f"cannot read {tmp_path}{os.sep}meta.mat as the metadata of CACD (")
    assert message.endswith("): download it again, see docs/data.md")
    assert "\n" not in message
    assert len(message) - len(str(tmp_path)) < 300


@pytest.mark.parametrize("write", [write_v5, write_v73], ids=["v5", "v7.3"])
def test_the_error_about_missing_permission_asks_for_no_download(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "meta.mat")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(UserError) as caught:
        read_metadata(path)

    assert str(caught.value) == f"cannot read {path} (Permission denied): check its permissions"


@pytest.mark.data
def test_the_real_metadata_has_the_documented_content(test_data: Path) -> None:
    fields = read_metadata(test_data / "cacd" / "celebrity2000_meta.mat")

    ages, names = fields["age"], fields["name"].tolist()
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
    assert len(set(names)) == 163_446
    assert all(NAME.fullmatch(name) for name in names)
    assert "53_Robin_Williams_0001.jpg" in names
