"""Copies of the templates, under a name that the user chooses.

A template is code that works: `my_backbone` and `MyBackbone` are replaced by the name.
"""

import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from agebench.config import config_folder
from agebench.errors import UserError, did_you_mean
from agebench.files import write_text


@dataclass(frozen=True)
class Kind:
    """What can be started from a template.

    Args:
        group: The config group that gets a choice.
        train: The overrides of a first training; NAME is the name.
        purpose: What it is, for --help.
    """

    group: str
    train: str
    purpose: str


KINDS = {
    "backbone": Kind("model", "model=NAME data=digits", "a network: model=NAME"),
    "head": Kind("head", "head=NAME data=demo data.target=age model=small_cnn data.image_size=32", "a loss: head=NAME"),
    "data": Kind("data", "data=NAME model=small_cnn", "a data set: data=NAME"),
    "augment": Kind("augment", "augment=NAME data=digits model=small_cnn", "an augmentation: augment=NAME"),
    "callback": Kind("callbacks", "callbacks=NAME data=digits model=small_cnn", "a callback: callbacks=NAME"),
    "experiment": Kind("experiment", "experiment=NAME", "a set of settings: experiment=NAME"),
    "project": Kind("experiment", "experiment=NAME", "a folder for your own parts and experiments"),
}
RENAMED = {"gitignore": ".gitignore"}  # a .gitignore among the templates would apply to them


def write_scaffold(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the files of a template and return their paths. No file is overwritten.

    Args:
        kind: A key of KINDS.
        name: The name, such as `tiny_net`: of a module, a YAML file, and in CamelCase of a class.
        folder: The folder to write into; created if it does not exist.

    Raises:
        UserError: If the kind does not exist, the name cannot be used, or one of the files exists.
    """
    if kind not in KINDS:
        raise UserError(f"there is no kind {kind!r}{did_you_mean(kind, KINDS)}: choose one of {', '.join(KINDS)}")
    check_name(kind, name)
    template = files("agebench.new") / "templates" / kind
    texts = {folder / _rename(path, kind, name): text for path, text in _read(template, "").items()}
    for path in texts:
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} exists and is not overwritten: choose another name or folder=, or delete it")
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, _rename(text, kind, name))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another folder=") from error
    return list(texts)


def check_name(kind: str, name: str) -> None:
    """Raise UserError unless a name can be that of a Python module and of a new choice."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} cannot be a name: it names a Python module, a class and a YAML file, so give it lower-case "
            "letters a-z, digits and _, such as tiny_net"
        )
    group = KINDS[kind].group
    if (config_folder() / group / f"{name}.yaml").exists():
        raise UserError(f"{group}={name} is a part of agebench: choose another name")
    if name in sys.stdlib_module_names or (kind not in ("experiment", "project") and _is_elsewhere(name)):
        raise UserError(f"there is a Python module {name} already, which would be hidden: choose another name")


def _is_elsewhere(name: str) -> bool:
    """Return whether a module of this name is installed. One in the working directory is seen as a file later."""
    found = importlib.util.find_spec(name)
    return found is not None and (found.origin is None or Path(found.origin).parent != Path.cwd())


def _read(folder: Traversable, below: str) -> dict[str, str]:
    """Return the text of each file in a folder, by its path relative to the folder."""
    found: dict[str, str] = {}
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.is_dir() and entry.name != "__pycache__":
            found |= _read(entry, f"{below}{entry.name}/")
        elif entry.is_file():
            found[f"{below}{RENAMED.get(entry.name, entry.name)}"] = entry.read_text(encoding="utf-8")
    return found


def _rename(text: str, kind: str, name: str) -> str:
    camel = "".join(part.capitalize() for part in name.split("_"))
    return text.replace(f"My{kind.capitalize()}", camel).replace(f"my_{kind}", name)
