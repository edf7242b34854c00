"""The wheel and the source distribution: what they contain, and that the wheel works without the checkout."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from trove_classifiers import classifiers

import agebench
from agebench.__main__ import COMMANDS
from agebench.new.scaffold import KINDS

REPOSITORY = Path(__file__).parents[2]
HELP = """
import os, sys
import agebench.__main__
assert agebench.__file__.startswith(os.environ["PYTHONPATH"]), agebench.__file__
for name in sys.argv[1:]:
    sys.argv = ["agebench", name, "--help"]
    try:
        agebench.__main__.main()
    except SystemExit as end:
        assert not end.code, name
"""
SHIPPED = {".py", ".yaml", ".html", ".css", ".js", ".md", ".toml", ".typed", ""}  # of text files


@pytest.fixture(scope="module")
def uv() -> str:
    found = Path(sys.executable).with_name("uv")
    if not found.exists():
        pytest.skip("no uv in this environment to build the wheel with")
    return str(found)


@pytest.fixture(scope="module")
def built(uv, tmp_path_factory) -> Path:
    """Return a folder with the source distribution, and the wheel that is built from it, without a network."""
    folder = tmp_path_factory.mktemp("dist")
    line = [uv, "build", "--quiet", "--offline", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*line, "--out-dir", str(folder), str(REPOSITORY)], check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    (file,) = built.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def metadata(wheel) -> Metadata:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Metadata.from_email(wheel.read(name), validate=True)


def files(folder: str, prefix: str = "") -> set[str]:
    """Return the files below a folder of the repository, as paths with a prefix."""
    here = REPOSITORY / folder
    found = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    return {prefix + path for path in found if "__pycache__" not in path}


def test_the_wheel_contains_every_file_of_the_package_and_the_configs_and_no_other(wheel):
    expected = files("src") | files("conf", "agebench/conf/")

    found = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert found == expected
    assert "agebench/py.typed" in found
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_contains_text_only_and_neither_weights_nor_fonts_nor_images(wheel):
    suffixes = {Path(name).suffix for name in wheel.namelist() if ".dist-info/" not in name}

    assert suffixes <= SHIPPED
    for name in wheel.namelist():
        wheel.read(name).decode("utf-8")


def test_the_source_distribution_contains_what_the_tests_and_the_site_read(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert files("src", "src/") | files("conf", "conf/") | files("tests", "tests/") <= names
    assert files("docs", "docs/") | files("experiments", "experiments/") | files("website", "website/") <= names
    assert {"LICENSE", "CITATION.cff", "CHANGELOG.md", "Makefile", "constraints.txt", "mkdocs.yml", "PKG-INFO"} <= names


def test_the_metadata_is_valid_and_names_license_pythons_and_the_version(metadata):
    assert metadata.license_expression == "Apache-2.0"
    assert str(metadata.version) == agebench.__version__
    assert "3.11" in (metadata.requires_python or ())
    assert set(metadata.classifiers or ()) <= classifiers


def test_the_readme_of_the_package_has_no_link_that_only_a_checkout_can_follow(metadata):
    readme = metadata.description or ""

    assert metadata.description_content_type == "text/markdown"
    assert readme.startswith("# agebench\n")
    assert "pip install agebench" in readme
    assert [link for link in re.findall(r"\]\(([^)]+)\)", readme) if not link.startswith("https://")] == []
    assert "![" not in readme


def test_the_version_of_the_citation_and_of_the_changelog_is_that_of_the_code():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    first = re.search(r"^## (\S+) \(", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert str(citation["version"]) == agebench.__version__
    assert first is not None
    assert first[1] == agebench.__version__


@pytest.fixture(scope="module")
def installed(uv, built, tmp_path_factory) -> Path:
    """Return a folder with the installed wheel. Its dependencies are those of this environment."""
    (file,) = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    line = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", sys.executable]
    subprocess.run([*line, "--target", str(folder), str(file)], check=True)
    return folder


def run(site: Path, folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the installed command `agebench` in a folder outside of the checkout."""
    script = site / ("Scripts/agebench.exe" if os.name == "nt" else "bin/agebench")
    environment = {**os.environ, "PYTHONPATH": str(site), "AGEBENCH_DATA": str(folder / "data")}
    line = [str(script), *arguments]
    return subprocess.run(line, cwd=folder, env=environment, check=check, capture_output=True, text=True, timeout=300)


def test_an_installed_wheel_trains_and_makes_the_page_without_the_checkout(installed, tmp_path):
    line = ("data=digits", "model=mlp", "trainer.max_epochs=1", "hydra.run.dir=out")
    done = run(installed, tmp_path, "train", *line)

    assert str(REPOSITORY) not in done.stdout + done.stderr
    assert (tmp_path / "out" / "results.json").is_file()
    assert (tmp_path / "out" / "report" / "index.html").is_file()


def test_an_installed_wheel_has_the_help_of_every_command_and_every_template(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    helped = subprocess.run([sys.executable, "-c", HELP, *COMMANDS], cwd=tmp_path, env=environment, check=False,
                            capture_output=True, text=True, timeout=120)  # fmt: skip
    for kind in KINDS:
        run(installed, tmp_path, "new", kind, f"mine_{kind}")

    assert helped.returncode == 0, helped.stderr
    assert helped.stdout.count("keras_cnn") >= 1  # a choice, read from conf/
    assert (tmp_path / "mine_backbone.py").is_file()
