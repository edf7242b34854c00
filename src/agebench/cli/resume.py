"""`resume=FOLDER`: expands to the command line of the run in that folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agebench.cli.main import quoted
from agebench.errors import UserError


def expand_resume(arguments: Sequence[str]) -> list[str]:
    """Return the command line with resume=FOLDER replaced by the overrides with which that run was started.

    Further overrides follow them. The process changes to the run's working directory, because paths may be relative.

    Raises:
        UserError: If the folder is not a run of train, or the command asks for more than one run.
    """
    given = [argument for argument in arguments if argument.partition("=")[0] == "resume"]
    name = given[-1].partition("=")[2].strip("'\"") if given else "auto"
    if name.lower() in ("", "auto", "false", "null", "true") or any(a in ("--help", "-h") for a in arguments):
        return list(arguments)
    rest = [argument for argument in arguments if argument not in given]
    folder = Path(name).absolute()
    own = f"hydra.run.dir={quoted(str(folder))}"
    if own in rest:  # a DDP rank, started with the expanded command line
        return list(arguments)
    _refuse(name, folder, rest)
    hydra, overrides = _read(folder / ".hydra" / "hydra.yaml"), _read(folder / ".hydra" / "overrides.yaml")
    sources = hydra["hydra"]["runtime"]["config_sources"]
    configs = [f"--config-dir={source['path']}" for source in sources if source["provider"] == "command-line"]
    searched = [o for o in hydra["hydra"]["overrides"]["hydra"] if o.startswith("hydra.searchpath=")]
    typed = [o for o in overrides if o.partition("=")[0] != "resume"]
    started_in = Path(hydra["hydra"]["runtime"]["cwd"])
    if started_in.is_dir():
        os.chdir(started_in)
    return [*configs, *typed, *searched, *rest, f"resume={quoted(str(folder))}", own]


def _refuse(name: str, folder: Path, rest: Sequence[str]) -> None:
    if (folder / "multirun.yaml").is_file():
        raise UserError(
            f"resume={name} is a sweep: repeat the command of the sweep, which resumes its incomplete points"
        )
    if not (folder / ".hydra" / "overrides.yaml").is_file():
        raise UserError(
            f"resume={name} is not a run (it has no .hydra/overrides.yaml): "
            "give a folder that train wrote, auto or false"
        )
    if any(a in ("-m", "--multirun") for a in rest):
        raise UserError(f"resume={name} resumes one run: leave -m out")
    if any(a.startswith("hydra.run.dir=") for a in rest):
        raise UserError(f"resume={name} writes to that folder: leave hydra.run.dir out")


def _read(path: Path) -> Any:
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): repeat the command of the run instead of resume=") from error
