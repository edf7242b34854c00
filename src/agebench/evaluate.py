"""`python -m agebench.evaluate`: test a trained run again, or on another split or data set with the same labels."""

import re
import sys
from collections.abc import Sequence
from typing import Any

from agebench.cli.main import main as run_verb
from agebench.errors import UserError


def evaluate(cfg: Any) -> None:
    """Test by a composed config, and write the figures beside the run."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    if not cfg.run or str(cfg.run) == "???":
        raise UserError("evaluate needs a trained run: run=outputs/...")
    from agebench.cli.rules import RUN_RULES, check_rules

    check_rules(cfg, RUN_RULES)
    from agebench.inference.evaluate import evaluate_run

    keys = {_key(override) for override in HydraConfig.get().overrides.task}
    evaluate_run(cfg, Path(HydraConfig.get().runtime.output_dir), typed=keys)


def with_own_data(arguments: Sequence[str]) -> list[str]:
    """Return the command line with the run's own `data=NAME` in it where `data/split=` is given and no data set is.

    Raises:
        UserError: If the run is none, does not say which one that is, or keys of a data set are given without
            either.
    """
    from pathlib import Path

    from agebench.runs.folder import read_results

    given = {_key(argument): argument.partition("=")[2] for argument in arguments if not argument.startswith("-")}
    if any(argument in ("--help", "-h") for argument in arguments):
        return list(arguments)
    run = given.get("run", "").strip("'\"")
    if run and "$" not in run:
        read_results(Path(run))  # before Hydra makes a folder for the evaluation in it
    about = [key for key in given if key.startswith(("data/", "data."))]
    if "data" in given or not about:
        return list(arguments)
    name = _own_data(run)
    if name is None:
        raise UserError(f"{about[0]} needs to know of which data set: give data=NAME too")
    if "data/split" not in given:
        raise UserError(f"{about[0]} needs to know of which data set and split: give data={name} data/split=NAME too")
    return [*arguments, f"data={name}"]


def _own_data(run: str) -> str | None:
    """Return the choice of `data` that a run was started with."""
    from pathlib import Path

    from omegaconf import OmegaConf

    file = Path(run).expanduser() / ".hydra" / "hydra.yaml"
    try:
        name = OmegaConf.load(file).hydra.runtime.choices.data
    except Exception:  # no run, or one of which something is gone: the verb says so, if it comes that far
        return None
    return name if isinstance(name, str) and re.fullmatch(r"[\w.\-]+", name) else None  # no path to a YAML file


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def main() -> None:
    """Run the verb."""
    try:
        sys.argv[1:] = with_own_data(sys.argv[1:])
    except UserError as error:
        print(f"agebench evaluate: {error}", file=sys.stderr)
        sys.exit(2)
    run_verb("evaluate", evaluate, config_name="evaluate")


if __name__ == "__main__":
    main()
