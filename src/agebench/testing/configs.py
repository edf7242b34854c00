"""The contract of YAML files that add choices to agebench's config groups."""

from pathlib import Path
from typing import Any

from agebench.build.keys import NETWORK, TRAINING, check_nodes
from agebench.cli.compose import composed
from agebench.cli.help import describe
from agebench.config import config_folder
from agebench.contract import ContractError, require
from agebench.errors import UserError

LONGEST = 98  # characters of a description, so that a line of --help fits a terminal


def check_config(path: str | Path, *overrides: str) -> list[str]:
    """Check a YAML file of a folder for `--config-dir`, or every file of the folder.

    A file begins with a comment, which --help shows; it has a name that agebench does not use; it composes with the
    default config; and its values fit the signatures of the objects that it names.

    Args:
        path: The folder, or a file such as `conf/model/tinynet.yaml`.
        overrides: Keys that the files need, such as `data.root=photos`, in Hydra's grammar.

    Returns:
        The checked choices, such as `model=tinynet`.

    Raises:
        ContractError: If a file breaks the contract.

    Examples:
        >>> check_config("conf")  # doctest: +SKIP
        ['head=earth_mover', 'model=tinynet']
    """
    path = Path(path)
    require(path.exists(), "check_config needs a folder of YAML files, or one file", f"{path}, which does not exist")
    files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
    files = [file for file in files if not file.stem.startswith("_")]
    require(bool(files), "a folder of configs must have a YAML file", f"none in {path}")
    return [_check_file(file, overrides) for file in files]


def _check_file(file: Path, overrides: tuple[str, ...]) -> str:
    group, root = _find_group(file)
    choice = f"{group}={file.stem}"
    text = describe(file)
    require(5 < len(text) <= LONGEST, f"{file} must begin with a comment of one line that describes it", repr(text))
    own = config_folder() / group / file.name
    require(not own.exists(), f"{choice} must not be a choice of agebench, which would be used instead", own)
    try:
        with composed("config", [choice, *overrides], config_dir=root) as cfg:
            _check_composed(cfg)
    except UserError as error:
        raise ContractError(
            f"{choice} must compose with the default config, and its values must fit: {error}"
        ) from error
    return choice


def _check_composed(cfg: Any) -> None:
    from omegaconf import OmegaConf

    from agebench.cli.rules import check_config as check_keys

    check_keys(cfg)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    check_nodes(plain, (*NETWORK, *TRAINING))


def _find_group(file: Path) -> tuple[str, Path]:
    """Return the group of a file, and the folder that has the groups."""
    parents = list(file.absolute().parents)
    for depth in (2, 1):  # data/split before data
        group = "/".join(parent.name for parent in reversed(parents[:depth]))
        if (config_folder() / group).is_dir() and group.partition("/")[0] != "hydra":
            return group, parents[depth]
    groups = sorted(p.name for p in config_folder().iterdir() if p.is_dir() and p.name != "hydra")
    raise ContractError(f"{file} must be in the folder of a config group: {', '.join(groups)}; got {parents[0].name}")
