"""The command line of a run, read from `.hydra/`."""

import shlex

import pytest
import yaml

from agebench.runs.command_line import arguments_of, for_shell


def test_the_line_of_a_resumed_run_is_the_original_one(tmp_path) -> None:
    sources = [{"path": "/lab/my conf", "provider": "command-line"}, {"path": "/agebench/conf", "provider": "main"}]
    overrides = {"hydra": ["hydra.run.dir='/runs/a'", "hydra.searchpath=[file:///x]"]}
    hydra = {"runtime": {"config_sources": sources}, "overrides": overrides}
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    typed = ["model=senet", "++trust=true", "optim.lr=0.1", "resume='/runs/a'"]
    (tmp_path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(typed))

    found = arguments_of(tmp_path)

    assert found == ["--config-dir=/lab/my conf", "model=senet", "optim.lr=0.1", "hydra.searchpath=[file:///x]"]


@pytest.mark.parametrize(
    "hydra", ["{", "hydra: 3", "hydra: {runtime: {config_sources: {a: 1}}, overrides: {hydra: x}}"]
)
def test_a_damaged_hydra_yaml_costs_only_the_folders_of_configs(tmp_path, hydra) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "hydra.yaml").write_text(hydra)
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[data=digits]")

    assert arguments_of(tmp_path) == ["data=digits"]


def test_the_last_value_of_a_key_of_a_resumed_run_holds(tmp_path) -> None:
    (tmp_path / ".hydra").mkdir()
    typed = ["trainer.max_epochs=3", "model=mlp", "trainer.max_epochs=5"]
    (tmp_path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(typed))

    assert arguments_of(tmp_path) == ["trainer.max_epochs=5", "model=mlp"]


def test_a_folder_without_overrides_has_no_line(tmp_path) -> None:
    assert arguments_of(tmp_path) == []


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("model=mlp", "model=mlp"),
        ("--config-dir=/my conf", "'--config-dir=/my conf'"),
        ("data.root='/a (b)'", "\"data.root='/a (b)'\""),
        ("data.root='/a $HOME'", None),
        ("data.root='C:\\a !x'", None),
    ],
)
def test_a_shell_reads_an_argument_back(argument, shown) -> None:
    quoted = for_shell(argument)

    assert shlex.split(quoted) == [argument]
    assert shown in (None, quoted)
    assert shown or quoted.startswith("'")  # a shell expands nothing in it
