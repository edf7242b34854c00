"""The documentation site: it is complete, and its pages load nothing from other servers."""

import ast
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agebench.__main__ import COMMANDS

REPOSITORY = Path(__file__).parents[1]
CONF = REPOSITORY / "conf"
GROUPS = [path for path in sorted(CONF.rglob("*")) if path.is_dir() and path.relative_to(CONF).parts[0] != "hydra"]

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site as `make docs` does, and return its folder."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="needs the extra: make docs, or pip install agebench[docs]")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=REPOSITORY,
        env={**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},  # no network
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


class Page(HTMLParser):
    """Collects what a page loads, its text, and the names of its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text = ""
        self.ids: set[str] = set()
        self.language = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids.add(given.get("id", ""))
        self.language = given.get("lang", "") if tag == "html" else self.language
        if tag != "a":
            self.loaded += [given[key] for key in ("src", "href", "srcset", "data", "poster") if key in given]

    def handle_data(self, data) -> None:
        self.text += data


def test_no_page_and_no_style_loads_anything_from_another_server(site) -> None:
    pages = sorted(site.rglob("*.html"))

    foreign = [f"{path}: {url}" for path in pages for url in Page(path).loaded if re.match(r"(https?:)?//", url)]
    styles = [p for p in site.rglob("*.css") if re.search(r"(url\(['\"]?|@import ['\"])(https?:)?//", p.read_text())]

    assert len(pages) > 50
    assert foreign == []
    assert styles == []


@pytest.mark.parametrize("group", GROUPS, ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_choice_and_every_key_of_a_group_is_in_the_reference(site, group) -> None:
    name = group.relative_to(CONF).as_posix().replace("/", "-")
    files = [path for path in group.glob("*.yaml") if not path.stem.startswith("_")]
    keys = {
        f"{name.replace('-', '.')}.{key}"
        for path in files
        for key in re.findall(r"^([a-z]\w*): *[^\s#].*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    page = Page(site / "reference/keys" / f"{name}.html")

    assert {path.stem for path in files} <= page.ids
    if name not in ("experiment", "debug"):  # their files set keys of other groups
        assert [key for key in sorted(keys) if key not in page.text] == []


@pytest.mark.parametrize(
    ("group", "row"),
    [
        # The values of build/keys.py and data/keys.py; the default and the comment of the YAML file.
        (
            "data",
            "data.eval_batch_size 256 an integer of 1 or more images per step in val and test;",
        ),
        ("optim", "optim.momentum 0.9 a number of 0 or more"),
        # The annotations of keras_cnn's and of Lightning's arguments.
        ("model", "model.dense_dropout 0.25 a number from 0 to 1"),
        ("callbacks", "callbacks.checkpoint.save_last true true or false, link, or null"),
    ],
)
def test_a_key_has_its_default_its_values_and_its_comment(site, group, row) -> None:
    assert row in " ".join(Page(site / "reference/keys" / f"{group}.html").text.split())


def test_the_help_of_every_command_is_in_the_reference(site) -> None:
    page = Page(site / "reference/commands.html")

    assert set(COMMANDS) <= page.ids
    assert [name for name in COMMANDS if f"usage: python -m agebench.{name} " not in page.text] == []


@pytest.mark.parametrize(
    ("package", "page"), [("heads", "heads"), ("models", "models"), ("data/sources", "data-sources")]
)
def test_every_class_of_a_package_is_in_the_reference(site, package, page) -> None:
    classes = {
        f"agebench.{package.replace('/', '.')}.{path.stem}.{node.name}"
        for path in (REPOSITORY / "src/agebench" / package).glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not path.stem.startswith("_") and not node.name.startswith("_")
    }

    assert classes - Page(site / "reference/python" / f"{package.replace('/', '-')}.html").ids == set()


def test_error_messages_are_in_the_reference_with_names_for_values(site) -> None:
    text = Page(site / "reference/errors.html").text

    assert "head=binary needs a target with two labels, but this target has <num_labels>: use head=softmax" in text
    assert text.count("\n") > 250


def test_japanese_pages_are_marked_as_such(site) -> None:
    languages = {path.relative_to(site).as_posix(): Page(path).language for path in site.rglob("*.html")}

    japanese = {path for path, language in languages.items() if language == "ja"}

    assert japanese == {f"ja/{name}.html" for name in ("index", "lectures", "tutorial", "data", "page")}
