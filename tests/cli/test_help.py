"""The help screen lists every choice with the first line of its file."""

import re

import pytest

from agebench.cli.help import USES, describe, show_help
from agebench.cli.main import main


@pytest.fixture
def screen(conf) -> str:
    return show_help("train", conf, "config")


def test_every_group_is_listed_with_every_choice_and_its_line(screen, conf) -> None:
    blocks = dict(re.findall(r"^(\S+)=\n((?:  \S.*\n?)+)", screen, flags=re.MULTILINE))

    groups = "data data/split model head optim scheduler augment trainer callbacks logger experiment debug"
    for group in groups.split():
        choices = [path for path in (conf / group).glob("*.yaml") if not path.stem.startswith("_")]
        listed = {line.split()[0]: " ".join(line.split()[1:]) for line in blocks[group].splitlines()}
        assert set(listed) == {path.stem for path in choices}
        for path in choices:
            first_line = next(line for line in path.read_text().splitlines() if not line.startswith("# @")).lstrip("# ")
            assert listed[path.stem].removesuffix(" (default)") == " ".join(first_line.split())
            assert first_line


def test_the_defaults_are_marked(screen) -> None:
    marked = {line.split()[0] for line in screen.splitlines() if line.endswith(" (default)")}

    assert marked == {"digits", "mlp", "softmax", "adam", "constant", "none", "default", "tensorboard"}


def test_the_screen_fits_a_terminal(screen) -> None:
    choices = screen.partition("other keys")[0]

    assert max(len(line) for line in choices.splitlines()) <= 120


def test_keys_outside_groups_are_listed_with_their_comments(screen) -> None:
    other = screen.partition("other keys")[2]

    for key in ("seed", "monitor", "test_checkpoint", "report", "sweep", "pretrained", "checkpoint_path"):
        line = next(line for line in other.splitlines() if line.strip().startswith(f"{key}:"))
        assert "#" in line


def test_the_internals_of_hydra_are_not_listed(screen) -> None:
    assert "job_logging" not in screen
    assert "override_dirname" not in screen
    assert "runtime.choices" not in screen
    assert "_base" not in screen
    assert "defaults" not in screen


def test_the_example_is_a_sweep_over_learning_rates(screen) -> None:
    assert "python -m agebench.train model=convnext data=cacd -m optim.lr=1e-4,1e-3" in screen


@pytest.mark.parametrize("verb", USES)
def test_the_help_of_each_verb_starts_with_its_usage(verb, conf) -> None:
    name = "config" if verb == "train" else verb

    assert show_help(verb, conf, name).startswith(f"usage: python -m agebench.{verb} ")


def test_a_verb_that_only_reads_data_offers_only_data(conf) -> None:
    screen = show_help("prepare", conf, "prepare")

    assert "data/split=" in screen
    assert "model=" not in screen
    assert "optim=" not in screen


@pytest.mark.parametrize("flags", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_the_choices_of_an_own_folder_are_listed_too(tmp_path, monkeypatch, capsys, flags) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mnet.yaml").write_text("# a network of my own\n_target_: mnet.Net\n")
    (tmp_path / "model" / "_part.yaml").write_text("# no choice\n")
    monkeypatch.setattr("sys.argv", ["agebench-train", *(flag.format(tmp_path) for flag in flags), "--help"])

    main("train", lambda cfg: None, config_name="config")

    lines = capsys.readouterr().out.splitlines()
    assert "  mnet                a network of my own" in lines
    assert lines.index("model=") < lines.index("  mnet                a network of my own") < lines.index("optim=")
    assert not any("no choice" in line for line in lines)


def test_the_package_line_of_a_yaml_file_is_not_its_description(tmp_path) -> None:
    file = tmp_path / "choice.yaml"

    file.write_text("# @package _global_\n# What it is\nkey: 1\n")
    assert describe(file) == "What it is"
    file.write_text("key: 1  # not a description\n")
    assert describe(file) == ""
