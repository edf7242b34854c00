"""Hashes of code outside agebench and outside installed libraries."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from agebench.runs.own_code import changed_code, own_code

FILES = {
    "__init__.py": "from .net import Net as Renamed\n",
    "net.py": "import numpy\n\nfrom . import parts\nfrom .parts.blocks import WIDTH\n\n\nclass Net:\n    pass\n",
    "alias.py": "from functools import partial\n\nsmall = partial(dict)\n",
    "other.py": "class Other:\n    pass\n",
    "parts/__init__.py": "",
    "parts/blocks.py": "from ..constants import *\n\nWIDTH = 8\n",
    "constants.py": "DEPTH = 3\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Callable[..., str]:
    """Return a function that writes a package, outside or inside site-packages, and returns its name."""

    def write(name: str, *, inside: str = "lab") -> str:
        for file, text in FILES.items():
            path = tmp_path / inside / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path / inside))
        return name

    return write


def sha_of(package: str, *files: str) -> str:
    """Return the documented hash of files of a package: of a line with the module and the hash of each file."""
    lines = []
    for file in files:
        parts = [part for part in (package, *Path(file).with_suffix("").parts) if part != "__init__"]
        lines.append(f"{'.'.join(parts)} {hashlib.sha256(FILES[file].encode()).hexdigest()}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:12]


def test_the_hash_is_that_of_the_defining_file_and_of_what_it_imports(package) -> None:
    name = package("own_hashed")
    config = {"model": {"_target_": f"{name}.net.Net"}, "head": {"_target_": f"{name}.other.Other"}}

    found = own_code(config)

    of_net = ("constants.py", "net.py", "parts/__init__.py", "parts/blocks.py")
    assert found == {f"{name}.net.Net": sha_of(name, *of_net), f"{name}.other.Other": sha_of(name, "other.py")}


@pytest.mark.parametrize(
    ("file", "changes"), [("net.py", True), ("constants.py", True), ("other.py", False), ("__init__.py", False)]
)
def test_the_hash_changes_with_a_file_that_is_used(package, tmp_path, file, changes) -> None:
    name = package(f"own_changed_{file.strip('_.py')}")
    config = {"model": {"_target_": f"{name}.net.Net"}}
    before = own_code(config)
    path = tmp_path / "lab" / name / file
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # a checkout on Windows

    same = own_code(config)
    path.write_text(FILES[file] + "CHANGED = 1\n", encoding="utf-8")
    now = own_code(config)

    assert same == before
    assert (now != before) == changes


@pytest.mark.parametrize(
    ("target", "files"),
    [
        ("Renamed", ("constants.py", "net.py", "parts/__init__.py", "parts/blocks.py")),  # defined in net.py
        ("alias.small", ("alias.py",)),  # an object without a file of its own
    ],
)
def test_a_target_under_another_name_is_found_where_it_is_defined(package, target, files) -> None:
    name = package(f"own_{target.replace('.', '_').lower()}")

    assert own_code({"model": {"_target_": f"{name}.{target}"}}) == {f"{name}.{target}": sha_of(name, *files)}


def test_targets_in_lists_count_and_those_of_libraries_and_loggers_do_not(package) -> None:
    name, installed = package("own_listed"), package("own_installed", inside="lib/site-packages")
    own = f"{name}.other.Other"
    config = {
        "augment": {"steps": [{"_target_": own}, {"_target_": "torch.nn.Identity"}]},
        "head": {"_target_": "agebench.heads.CORAL"},
        "model": {"_target_": f"{installed}.net.Net"},
        "optim": {"_target_": "no_such_module_anywhere.Adam"},
        "data": {"source": {"_target_": "collections.OrderedDict"}},
        "logger": {"mine": {"_target_": f"{name}.net.Net"}},
    }

    assert list(own_code(config)) == [own]


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ({"lab.Net": "aaa", "lab.Head": "bbb"}, "lab.Net was aaa and is ccc now"),
        ({"lab.Net": "ccc", "lab.Gone": "ddd"}, ""),
        ({}, ""),
        (None, ""),  # a run of an older version
        ("damaged", ""),
    ],
)
def test_only_code_that_was_recorded_and_differs_has_changed(before, sentence) -> None:
    assert changed_code(before, {"lab.Net": "ccc", "lab.Head": "bbb"}) == sentence
