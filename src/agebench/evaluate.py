"""`python -m agebench.evaluate`: test a trained run again, or on another split or data set."""

import re
import sys
from collections.abc import Sequence
from typing import Any

from agebench.cli.main import announce_loading
from agebench.cli.main import main as run_command
from agebench.errors import UserError
from agebench.text import say


def evaluate(cfg: Any) -> None:
    """Test a run as a composed config describes, and write the metrics into a folder of the run."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    if not cfg.run or str(cfg.run) == "???":
        raise UserError("evaluate needs a trained run: run=outputs/...")
    from agebench.build.keys import EvaluateKeys
    from agebench.cli.rules import check_config

    check_config(cfg, EvaluateKeys)
    announce_loading()
    from agebench.inference.evaluate import evaluate_run

    keys = {_key(override) for override in HydraConfig.get().overrides.task}
    evaluate_run(cfg, Path(HydraConfig.get().runtime.output_dir), user_keys=keys)


def with_own_data(arguments: Sequence[str]) -> list[str]:
    """Return the command line; if it has `data/split=` without `data=`, the run's own `data=NAME` is added.

    Without both, `data.groups=` groups the run's own test images, and becomes `groups=`.

    Raises:
        UserError: If the folder is not a run, its data set is unknown, or keys of a data set are given without `data=`
            and `data/split=`.
    """
    from agebench.cli.overrides import list_items, typed_text
    from agebench.runs.members import find_members

    if not any(_key(argument) in ("data", "data/split") for argument in arguments):
        arguments = [re.sub(r"^\+*data\.groups=", "groups=", argument) for argument in arguments]
    given = {_key(argument): argument.partition("=")[2] for argument in arguments if not argument.startswith("-")}
    if any(argument in ("--help", "-h") for argument in arguments):
        return list(arguments)
    runs = [typed_text(each) for each in list_items(given["run"]) or [given["run"]]] if given.get("run") else []
    if runs and not any("${" in run for run in runs):
        runs = list(map(str, find_members(runs)))  # before Hydra creates the folder of the evaluation inside it
    data_keys = [key for key in given if key.startswith(("data/", "data."))]
    if "data" in given or not data_keys:
        return list(arguments)
    name = _own_data(runs[0] if runs else "")
    if name is None:
        raise UserError(f"{data_keys[0]} needs a data set: add data=NAME")
    if "data/split" not in given:
        raise UserError(f"{data_keys[0]} needs a data set and a split: add data={name} data/split=NAME")
    return [*arguments, f"data={name}"]


def _own_data(run: str) -> str | None:
    """Return the choice of `data` with which a run was started; None if it is unknown."""
    from pathlib import Path

    from omegaconf import OmegaConf

    file = Path(run).expanduser() / ".hydra" / "hydra.yaml"
    try:
        name = OmegaConf.load(file).hydra.runtime.choices.data
    except Exception:  # not a run, or a damaged one: the command reports it later
        return None
    return name if isinstance(name, str) and re.fullmatch(r"[\w.\-]+", name) else None  # no path to a YAML file


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def main() -> None:
    """Run the command."""
    try:
        sys.argv[1:] = with_own_data(sys.argv[1:])
    except UserError as error:
        say(f"agebench evaluate: {error}")
        sys.exit(2)
    run_command("evaluate", evaluate, config_name="evaluate")


if __name__ == "__main__":
    main()
