"""`agebench new`: every kind of template passes its own test under any name, and nothing is overwritten."""

import importlib
import inspect
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

from agebench.errors import UserError
from agebench.new.__main__ import main
from agebench.new.scaffold import KINDS, write_scaffold

TEMPLATES = Path(inspect.getfile(write_scaffold)).parent / "templates"


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_of_each_kind_pass_their_own_test(kind, tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"fresh_{kind}_1"

    written = write_scaffold(kind, name, tmp_path)

    tests = importlib.import_module(f"test_{name}")
    functions = {key: value for key, value in vars(tests).items() if key.startswith("test_")}
    assert functions
    for function in functions.values():
        function(*[tmp_path / "images"] * len(inspect.signature(function).parameters))
    texts = "".join(path.read_text(encoding="utf-8") + path.name for path in written)
    assert f"my_{kind}" not in texts
    assert f"My{kind.capitalize()}" not in texts


@pytest.mark.parametrize("kind", KINDS)
def test_each_template_is_complete(kind) -> None:
    files = {path.relative_to(TEMPLATES / kind).as_posix() for path in (TEMPLATES / kind).rglob("*") if path.is_file()}

    group = KINDS[kind].group
    assert {f"conf/{group}/my_{kind}.yaml", f"test_my_{kind}.py"} <= files


def test_a_class_name_is_the_name_in_camel_case(tmp_path) -> None:
    write_scaffold("backbone", "tiny_net_2", tmp_path)

    assert "class TinyNet2(nn.Sequential)" in (tmp_path / "tiny_net_2.py").read_text()
    assert "_target_: tiny_net_2.TinyNet2" in (tmp_path / "conf" / "model" / "tiny_net_2.yaml").read_text()


def test_an_existing_file_stops_everything_before_the_first_is_written(tmp_path) -> None:
    (tmp_path / "test_tiny.py").write_text("mine")

    with pytest.raises(UserError, match=r"test_tiny.py exists and is not overwritten: choose another name"):
        write_scaffold("head", "tiny", tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["test_tiny.py"]
    assert (tmp_path / "test_tiny.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("backbone", "顔", "lower-case letters a-z, digits and _"),
        ("backbone", "Tiny", "lower-case letters"),
        ("backbone", "2net", "lower-case letters"),
        ("backbone", "../net", "lower-case letters"),
        ("backbone", "class", "lower-case letters"),
        ("backbone", "vit", "model=vit is a part of agebench"),
        ("head", "numpy", "there is a Python module numpy already"),
        ("experiment", "random", "there is a Python module random already"),
        ("bacbone", "tiny", r"no kind 'bacbone' \(did you mean 'backbone'\?\)"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_in_one_sentence(kind, name, message, tmp_path) -> None:
    with pytest.raises(UserError, match=message):
        write_scaffold(kind, name, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_project_into_a_folder_of_its_name(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["agebench-new", "project", "face_lab"])

    main()

    assert (tmp_path / "face_lab" / ".gitignore").read_text().splitlines() == [
        "__pycache__/", ".pytest_cache/", "data/", "outputs/",
    ]  # fmt: skip
    assert "python -m agebench.train --config-dir conf experiment=face_lab" in capsys.readouterr().out


def test_the_command_writes_into_a_given_folder_and_refuses_a_second_time(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["agebench-new", "augment", "grain", "folder=私の実験"])
    main()

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert (tmp_path / "私の実験" / "grain.py").is_file()
    assert capsys.readouterr().err.splitlines()[-1].startswith("agebench new: 私の実験/conf/augment/grain.yaml exists")


def test_the_wheel_of_a_project_has_its_parts_and_its_yaml_files_but_no_tests(tmp_path, monkeypatch) -> None:
    project, wheels = tmp_path / "face_lab", tmp_path / "wheels"
    write_scaffold("project", "face_lab", project)
    write_scaffold("backbone", "tiny_net", project)
    for file in ("labparts/__init__.py", "tests/helper.py", "outputs/run/copy.py"):
        (project / file).parent.mkdir(parents=True)
        (project / file).touch()
    wheels.mkdir()
    monkeypatch.chdir(project)

    name = build_wheel(str(wheels))

    with zipfile.ZipFile(wheels / name) as wheel:
        installed = {file for file in wheel.namelist() if ".dist-info/" not in file}
    assert installed == {
        "tiny_net.py",
        "labparts/__init__.py",
        "face_lab_conf/__init__.py",
        "face_lab_conf/experiment/face_lab.yaml",
        "face_lab_conf/model/tiny_net.yaml",
    }
