"""Overrides as they are typed in a shell, rewritten in Hydra's grammar: a text needs no second layer of quotes."""

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser

CLOSING = {"(": ")", "[": "]", "{": "}"}
# A quoted value of Hydra's grammar that ends where an element may end.
QUOTED = re.compile(r"""(['"])(?:(?:\\\\)*|.*?[^\\](?:\\\\)*)\1(?=\s*(?:[,)\]}]|$))""", re.DOTALL)
ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")  # as in Hydra's grammar
# A path of Windows with a drive or a server. Its backslashes are separators; only one before a comma is an escape.
WINDOWS_PATH = re.compile(r"[A-Za-z]:\\|\\\\[\w.-]+\\\w")
# Keys that take a text or a list of texts, in brackets.
TEXT_LISTS = ("run", "hydra.searchpath")
# Names of keys that take a path, if no config has a value from which the type follows.
PATH_NAME = re.compile(r"(?:path|file|dir|folder|root|export)$")


def to_hydra(override: str, *, is_text: Callable[[str], bool], sweeps: bool) -> str:
    """Return an override that Hydra reads as the user typed it.

    What Hydra's grammar accepts keeps its meaning: lists, choice(), quotes, null, interpolations, and numbers for keys
    that take no text. Every other value is a text. A ~ at its start becomes the home folder.

    Args:
        override: KEY=VALUE as the program received it. Any other argument is returned unchanged.
        is_text: Whether a key, dotted, takes a text: then numbers and lists are texts too.
        sweeps: Whether the command can take several values. Otherwise a comma is a part of a text.
    """
    key, sign, value = override.partition("=")
    if not sign:
        return override

    @cache
    def takes_text() -> bool:
        return is_text(key.lstrip("+~"))

    if key in TEXT_LISTS and (items := list_items(value)) is not None:
        return f"{key}=[{','.join(_to_element(item, lambda: True) for item in items)}]"
    is_whole = "," in value and takes_text() and (not sweeps or _exists(value))
    elements = [value] if is_whole else _split(value)
    return f"{key}={','.join(_to_element(element, takes_text) for element in elements)}"


def list_items(value: str) -> list[str] | None:
    """Return the items of a list as they are typed; None if the value is no list, or a path that exists."""
    typed = value.strip()
    is_list = typed.startswith("[") and typed.endswith("]") and len(_split(typed)) == 1 and not _exists(typed)
    return _split(typed[1:-1]) if is_list and typed[1:-1].strip() else None


def typed_text(value: str) -> str:
    """Return the text that a typed value means if its key takes a text."""
    parsed = _parse(_to_element(value, lambda: True))
    return value if parsed is None else str(parsed.value())


def quoted(value: str) -> str:
    """Return a text quoted for Hydra's override grammar. It may contain any characters."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"


def key_takes_text(key: str, conf: Path, config_name: str) -> bool:
    """Return whether a key takes a path or another text, from the values that the configs give to it.

    A key whose value is a number, true, false or a list in some config takes no text. `auto` is ignored.

    Args:
        key: Dotted.
        conf: The folder of the configs.
        config_name: The primary config of the command.
    """
    values = []
    for file in (conf / f"{config_name}.yaml", *sorted((conf / key.partition(".")[0]).rglob("*.yaml"))):
        group = "".join(f"{part}." for part in file.parent.relative_to(conf).parts)
        value: Any = _load(file) if key.startswith(group) else None
        for part in key.removeprefix(group).split("."):
            value = value.get(part) if isinstance(value, dict) else None
        values.append(value)
    texts = {value for value in values if isinstance(value, str)} - {"", "auto"}
    if any(value is not None and not isinstance(value, str) for value in values):
        return False
    same_as = [match[1] for text in texts if (match := re.fullmatch(r"\$\{([\w.]+)\}", text))]
    if len(same_as) < len(texts):
        return True
    return any(key_takes_text(other, conf, config_name) for other in same_as) or bool(PATH_NAME.search(key))


@cache
def _load(file: Path) -> Any:
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception:  # Hydra reports a broken or missing file
        return {}


@cache
def _parser() -> "OverridesParser":
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _parse(value: str) -> Any:
    """Return Hydra's parsed override of a key with this value, or None if its grammar rejects the value."""
    from hydra.errors import HydraException

    try:
        return _parser().parse_override(f"key={value}")
    except HydraException:
        return None


def _to_element(typed: str, takes_text: Callable[[], bool]) -> str:
    """Return one of the values of an override in Hydra's grammar."""
    value, parsed = typed.strip(" \t"), _parse(typed)
    if WINDOWS_PATH.match(value):
        return quoted(value.replace("\\,", ","))
    function = re.match(rf"(?:{'|'.join(_parser().functions.functions)})\s*\(", value)
    if parsed is not None:
        means_itself = parsed.value() is None or isinstance(parsed.value(), str) or function
        return value if means_itself or not value or not takes_text() else quoted(value)
    has_items = function or (value[0] in "[{" and not takes_text())
    if has_items and value[-1] in CLOSING.values():
        start = function.end() if function else 1
        named = r"\s*\w+\s*=" if function else r"[^'\"]+?:" if value[0] == "{" else ""
        items = ",".join(_to_item(item, named) for item in _split(value[start:-1]))
        repaired = f"{value[:start]}{items}{value[-1]}"
        if _parse(repaired) is not None:  # in choice() Hydra removes the quotes, and then rejects its own override
            return items if value.startswith("choice") else repaired
    if has_items and not takes_text():  # such as an unclosed list, which Hydra reports
        return value
    return quoted(_to_text(value))


def _to_item(typed: str, named: str) -> str:
    """Return an item of a list, a mapping or a function, with its name if it has one, in Hydra's grammar."""
    name = re.match(named, typed)
    start = name.end() if name else 0
    return typed[:start] + _to_element(typed[start:], lambda: False)


def _to_text(value: str) -> str:
    """Return the text of a value outside Hydra's grammar: escapes are resolved, as for other values, and ~ too."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    text = os.path.expanduser(ESCAPED.sub(r"\1", value))  # noqa: PTH111  # Path.expanduser raises for an unknown user
    try:
        parse(text)
    except GrammarParseError:  # `${` that begins no interpolation
        return text.replace("${", "\\${")
    return text


def _exists(value: str) -> bool:
    try:
        return Path(os.path.expanduser(value)).exists()  # noqa: PTH111
    except (OSError, ValueError):  # too long, or it has a null character
        return False


def _split(value: str) -> list[str]:
    """Split a value at its commas, except those in quotes and in brackets that are closed."""
    opened: list[int] = []
    closed: dict[int, int] = {}
    commas: list[int] = []
    for i in _structure(value):
        if value[i] == ",":
            commas.append(i)
        elif value[i] in CLOSING:
            opened.append(i)
        elif same := [each for each in opened if CLOSING[value[each]] == value[i]]:
            closed[same[-1]] = i
            opened = [each for each in opened if each < same[-1]]
    cuts = [i for i in commas if not any(start < i < end for start, end in closed.items())]
    return [value[start + 1 : end] for start, end in zip([-1, *cuts], [*cuts, len(value)], strict=True)]


def _structure(value: str) -> Iterator[int]:
    """Yield the position of every comma and bracket that is neither escaped nor in a quoted value."""
    i, may_begin = 0, True  # whether a quoted value may begin here
    while i < len(value):
        if may_begin and (match := QUOTED.match(value, i)):
            i, may_begin = match.end(), False
            continue
        if value[i] == "\\":
            i, may_begin = i + 2, False
            continue
        if value[i] in ",()[]{}":
            yield i
        may_begin = value[i] in ",([{:=" or (may_begin and value[i].isspace())
        i += 1
