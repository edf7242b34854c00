"""Listed names against file names changed by unpacking."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote

import pytest

from agebench.data.sources import name_matching as names
from agebench.data.sources.cacd_metadata import read_metadata
from agebench.data.sources.name_matching import match_names

LISTED = [
    "53_Robin_Williams_0001.jpg",
    "14_Chloë_Moretz_0001.jpg",
    "42_Conan_O'Brien_0007.jpg",
    "23_Émilie_Dequénne_0003.jpg",
    "50_Jürgen_Vogel_0003.jpg",
]


def without_accents(name: str) -> str:
    return "".join(letter for letter in normalize("NFD", name) if letter.isascii())


def read_as(page: str, form: str = "NFC") -> Callable[[str], str]:
    return lambda name: normalize(form, name).encode().decode(page, "replace")


def escape(name: str) -> str:
    return "".join(letter if letter.isascii() else f"#U{ord(letter):04x}" for letter in name)


def entities(name: str) -> str:
    return name.encode("ascii", "xmlcharrefreplace").decode()


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as listed": lambda name: name,
    "NFD": lambda name: normalize("NFD", name),
    "JPG": lambda name: name.replace(".jpg", ".JPG"),
    "jpeg": lambda name: name.replace(".jpg", ".jpeg"),
    "capitals": lambda name: name.upper(),
    "UTF-8 read as cp437": read_as("cp437"),
    "UTF-8 read as cp850": read_as("cp850"),
    "UTF-8 read as cp1252": read_as("cp1252"),
    "UTF-8 read as Latin-1": read_as("latin-1"),
    "UTF-8 read as Mac Roman": read_as("mac-roman"),
    "UTF-8 read as Shift-JIS": read_as("cp932"),
    "UTF-8 read as Korean": read_as("cp949"),
    "UTF-8 read as Chinese": read_as("gbk"),
    "UTF-8 read as ASCII": read_as("ascii"),
    "UTF-8 read as cp1252 twice": lambda name: read_as("latin-1")(read_as("latin-1")(name)),
    "NFD read as cp437": read_as("cp437", "NFD"),
    "NFD read as cp1252": read_as("cp1252", "NFD"),
    "NFD read as Mac Roman": read_as("mac-roman", "NFD"),
    "NFD read as Shift-JIS": read_as("cp932", "NFD"),
    "cp1252 read as cp437, then in NFD": lambda name: normalize("NFD", read_as("cp1252")(name)),
    "Latin-1 as surrogates": lambda name: name.encode("latin-1").decode("utf-8", "surrogateescape"),
    "Latin-1 read as cp437": lambda name: name.encode("latin-1").decode("cp437"),
    "underscores for letters": lambda name: "".join(c if c.isascii() else "_" for c in name),
    "question marks for letters": lambda name: name.encode("ascii", "replace").decode(),
    "letters dropped": lambda name: name.encode("ascii", "ignore").decode(),
    "accents dropped": without_accents,
    "no apostrophes": lambda name: name.replace("'", ""),
    "typographic apostrophes": lambda name: name.replace("'", "’"),
    "typographic apostrophes read as cp1252": lambda name: read_as("cp1252")(name.replace("'", "’")),
    "underscores for apostrophes": lambda name: name.replace("'", "_"),
    "neither accents nor apostrophes": lambda name: without_accents(name.replace("'", "")),
    "escapes of Info-ZIP": escape,
    "escapes of URLs": quote,
    "escapes of HTML": lambda name: entities(html.escape(name)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_file_is_found_in_every_spelling(spelling: str) -> None:
    found = [f"CACD2000/{SPELLINGS[spelling](name)}" for name in LISTED]

    assert match_names(LISTED, found) == found


def test_a_listed_image_without_a_file_is_none() -> None:
    found = ["a/14_Chloë_Moretz_0001.jpg", "a/14_Chloë_Moretz_0002.jpg", "a/14_Chloë_Moretz_0001 (1).jpg", "b.png"]

    assert match_names(LISTED, found) == [None, "a/14_Chloë_Moretz_0001.jpg", None, None, None]
    assert match_names(LISTED, []) == [None] * 5
    assert match_names([], found) == []


@pytest.mark.parametrize("other", ["30_Zo_Kazan_0001.jpg", "30_Zoé_Kazan_0001.JPG", "30_Zoe\u0308_Kazan_0001.jpg"])
def test_an_exact_name_takes_precedence_over_a_similar_one(other: str) -> None:
    listed = ["30_Zoë_Kazan_0001.jpg"]

    assert match_names(listed, [other, *listed]) == listed


def test_a_closer_spelling_takes_precedence_over_a_looser_one() -> None:
    listed = ["30_Zoë_Kazan_0001.jpg", "31_Other_Person_0001.jpg"]
    found = ["30_Zo_Kazan_0001.jpg", "30_ZOË_KAZAN_0001.JPG"]

    assert match_names(listed, found) == [found[1], None]


def test_an_image_that_matches_two_files_has_none() -> None:
    listed = ["30_Zoë_Kazan_0001.jpg"]

    assert match_names(listed, ["30_Zo__Kazan_0001.jpg", "30_Zo?_Kazan_0001.jpg"]) == [None]
    assert match_names(listed, ["30_Zoë_Kazan_0001.JPG", "30_Zoë_Kazan_0001.jpeg"]) == [None]


def test_a_file_that_matches_two_images_is_not_used() -> None:
    listed = ["30_Zoë_Kazan_0001.jpg", "30_Zoé_Kazan_0001.jpg"]

    assert match_names(listed, ["30_Zo_Kazan_0001.jpg"]) == [None, None]
    assert match_names(listed, ["30_Zoe_Kazan_0001.jpg"]) == [None, None]
    # The second image has a file, so the other file might be the first image, or a copy of the second.
    assert match_names(listed, ["30_Zo_Kazan_0001.jpg", listed[1]]) == [None, listed[1]]


def test_a_file_is_used_for_one_image_only() -> None:
    listed = ["30_Zoe_Kazan_0001.jpg", "30_Zoë_Kazan_0001.jpg"]

    assert match_names(listed, ["30_Zoe_Kazan_0001.jpg"]) == ["30_Zoe_Kazan_0001.jpg", None]


def test_the_first_of_several_copies_is_used_and_the_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    found = ["z/cover.jpg", *(f"{folder}/{LISTED[0]}" for folder in ("c", "a", "b")), "x/cover.jpg", f"a/{LISTED[1]}"]

    matched = match_names(LISTED[:2], found)

    assert matched == [f"a/{LISTED[0]}", f"a/{LISTED[1]}"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            f"2 image files are ignored, because another folder has a file of the same name: for example "
            f"'b/{LISTED[0]}', because 'a/{LISTED[0]}' is used",
        )
    ]


def test_warnings_about_one_file_are_singular(caplog: pytest.LogCaptureFixture) -> None:
    match_names(LISTED[:2], [f"a/{LISTED[0]}", f"b/{LISTED[0]}", "logo.jpg"])

    assert [re.split(", such|: for", record.getMessage())[0] for record in caplog.records] == [
        "1 image file matches no listed image",
        "1 image file is ignored, because another folder has a file of the same name",
    ]


def test_unmatched_files_are_counted_if_images_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    match_names(LISTED, [*LISTED, "logo.jpg"])
    assert not caplog.records

    match_names(LISTED, [*LISTED[1:], "logo.jpg", "b\udceb.jpg"])

    message = r"2 image files match no listed image, such as 'b\udceb.jpg'"
    assert [record.getMessage() for record in caplog.records] == [message]


def test_loose_matching_is_skipped_if_all_names_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> str:
        raise AssertionError(name)

    monkeypatch.setattr(names, "KEYS", (refuse,))
    found = [f"CACD2000/{name}" for name in LISTED]

    assert match_names(LISTED, found) == found
    assert match_names(LISTED, found[:2]) == [*found[:2], None, None, None]
    assert match_names(LISTED[:2], found) == found[:2]
    with pytest.raises(AssertionError):
        match_names(LISTED, [*found[1:], "cover.jpg"])


@pytest.fixture(scope="module")
def real(test_data: Path) -> list[str]:
    return sorted(read_metadata(test_data / "cacd" / "celebrity2000_meta.mat")["name"].tolist())


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_real_name_with_special_letters_is_found(real: list[str], spelling: str) -> None:
    odd = [name for name in real if not name.isascii() or "'" in name]
    found = {name: f"CACD2000/{SPELLINGS[spelling](name)}" for name in odd}

    matched = match_names(real, list(found.values()))

    assert sum(not name.isascii() for name in odd) == 2_071
    assert len(set(found.values())) == len(odd)
    assert [found.get(name) for name in real] == matched
