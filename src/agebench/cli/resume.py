"""`resume=FOLDER`: expands to the command line of the run in that folder."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from agebench.cli.overrides import quoted, typed_text
from agebench.errors import UserError
from agebench.schema import check
from agebench.trust import check_trusted, find_foreign_overrides


def expand_resume(arguments: Sequence[str]) -> list[str]:
    """Return the command line with resume=FOLDER replaced by the overrides of that run.

    Further overrides follow them. The process changes to the run's working directory, because paths may be relative.

    The content of the folder is not trusted, unless the further overrides include trust=true.

    Raises:
        UserError: If the folder is not a run of train, the command asks for more than one run, or the folder names code
            that is not part of agebench and is not trusted.
    """
    given = [argument for argument in arguments if argument.partition("=")[0] == "resume"]
    typed = given[-1].partition("=")[2] if given else "auto"
    is_word = typed.strip("'\"").lower() in ("", "auto", "false", "null", "true")
    if is_word or any(a in ("--help", "-h") for a in arguments):
        return list(arguments)
    rest = [argument for argument in arguments if argument not in given]
    name = typed_text(typed)
    folder = Path(name).absolute()
    own = f"hydra.run.dir={quoted(str(folder))}"
    if own in rest:  # a DDP rank, started with the expanded command line
        return list(arguments)
    from agebench.runs.command_line import arguments as run_arguments

    _refuse(name, folder, rest)
    hydra = _read(folder / ".hydra" / "hydra.yaml", HydraFile)
    overrides = _read(folder / ".hydra" / "overrides.yaml", list[str])
    repeated = run_arguments(hydra["hydra"], overrides)
    trusted = [o.partition("=")[2].lower() for o in rest if o.lstrip("+~").startswith("trust=")][-1:] == ["true"]
    if not trusted:
        check_trusted(find_foreign_overrides(repeated), folder / ".hydra")
    started_in = Path(hydra["hydra"]["runtime"]["cwd"])
    if started_in.is_dir() and not started_in.samefile(Path.cwd()):
        if not trusted:
            _import_from_here()
        os.chdir(started_in)
    return [*repeated, *rest, f"resume={quoted(str(folder))}", own]


def _import_from_here() -> None:
    """Prevent Python from importing modules from the folder that becomes the working directory."""
    sys.path[:] = [str(Path(entry).absolute()) for entry in sys.path]
    os.environ["PYTHONSAFEPATH"] = "1"  # for the processes of DDP and of the data loader


def _refuse(name: str, folder: Path, rest: Sequence[str]) -> None:
    if os.path.isfile(folder / "multirun.yaml"):  # noqa: PTH113  # Path.is_file raises for a name that is too long
        raise UserError(
            f"resume={name} is a sweep: repeat the command of the sweep, which resumes its incomplete points"
        )
    if not os.path.isfile(folder / ".hydra" / "overrides.yaml"):  # noqa: PTH113
        inner = folder.glob("*/.hydra/overrides.yaml") if os.path.isdir(folder) else ()  # noqa: PTH112
        runs = sorted(inner, key=lambda file: file.stat().st_mtime)
        inside = f", such as {runs[-1].parent.parent}" if runs else ""
        raise UserError(
            f"resume={name} is not a run (it has no .hydra/overrides.yaml): "
            f"give a folder that train wrote{inside}, auto or false"
        )
    if any(a in ("-m", "--multirun") for a in rest):
        raise UserError(f"resume={name} resumes one run: remove -m")
    if any(a.startswith("hydra.run.dir=") for a in rest):
        raise UserError(f"resume={name} writes to that folder: remove hydra.run.dir")


class RuntimeKeys(TypedDict):
    """`hydra.runtime` of hydra.yaml."""

    cwd: str
    config_sources: list[dict[str, str]]


class HydraKeys(TypedDict):
    """`hydra` of hydra.yaml."""

    runtime: RuntimeKeys
    overrides: dict[str, list[str]]


class HydraFile(TypedDict):
    """What is read of .hydra/hydra.yaml."""

    hydra: HydraKeys


def _read(path: Path, kind: Any) -> Any:
    from omegaconf import OmegaConf
    from yaml import YAMLError  # type: ignore[import-untyped]  # PyYAML has no type information

    try:
        read = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        check("", read, kind)
        return read
    except (OSError, ValueError, YAMLError, UserError) as error:
        raise UserError(f"{path} cannot be read ({error}): repeat the command of the run instead of resume=") from error
