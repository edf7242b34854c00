"""Check plain data against type annotations, and config nodes against the signatures of the objects that they name.

An annotation may have a range and a description: `Annotated[int, Range(least=1), "a number of epochs"]`. Values are
not converted: `'1'` is no integer, and 1 is no boolean. An integer is a valid number; NaN and infinities are not.
"""

import enum
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict, Union, get_args, get_origin

from agebench.errors import UserError, did_you_mean

# Keys that hydra.utils.instantiate reads.
INSTRUCTIONS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
MAX_SEED = 2**32 - 1  # NumPy's
MAX_SHOWN = 80  # characters of a value in a message


@dataclass(frozen=True)
class Range:
    """A range of numbers, for `Annotated`. `least` and `most` are inside the range, `above` and `below` are not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __call__(self, value: Any) -> bool:
        """Return whether a number is in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return the range as words that follow `a number`."""
        if self.least is not None and self.most is not None:
            return f"from {self.least} to {self.most}"
        low = f"of {self.least} or more" if self.least is not None else ""
        low = f"above {self.above}" if self.above is not None else low
        high = f"at most {self.most}" if self.most is not None else ""
        high = f"below {self.below}" if self.below is not None else high
        return " and ".join(words for words in (low, high) if words)


Text = Annotated[str, bool, "a text"]
Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]
Seed = Annotated[int, Range(least=0, most=MAX_SEED)]
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
InnerShare = Annotated[float, Range(above=0, below=1)]


class Node(TypedDict):
    """A config node that names a class or function."""

    _target_: Text


class PartialNode(Node):
    """A config node that names a class or function, which is called later with further arguments."""

    _partial_: Annotated[Literal[True], "true"]


@dataclass(frozen=True)
class Mismatch:
    """The first value that does not fit its annotation."""

    key: str
    needed: str
    value: Any
    choices: Collection[str] = field(default=())
    missing: bool = False

    def __str__(self) -> str:
        if self.missing:
            return f"{self.key} is missing: it must be {self.needed}"
        guess = did_you_mean(self.value, self.choices)
        return f"{self.key or 'the content'} must be {self.needed}, got {show(self.value)}{guess}"


def check(key: str, value: Any, kind: Any) -> None:
    """Raise UserError with the first value that does not fit its annotation.

    Args:
        key: The dotted key of the value; empty for a complete config.
        value: Plain data.
        kind: An annotation. A TypedDict describes the keys of a mapping; further keys are allowed.
    """
    if (found := find_mismatch(key, value, kind)) is not None:
        raise UserError(str(found))


def find_mismatch(key: str, value: Any, kind: Any) -> Mismatch | None:
    """Return the first value that does not fit its annotation, or None."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Required, NotRequired):
        return find_mismatch(key, value, arguments[0])
    if origin is Annotated:
        found = find_mismatch(key, value, arguments[0])
        if found is not None and found.key != key:
            return found
        tests = [each for each in arguments[1:] if callable(each)]
        fits = found is None and all(test(value) for test in tests)
        return None if fits else Mismatch(key, describe(kind), value, found.choices if found else ())
    if origin in (Union, types.UnionType):
        mismatches = [find_mismatch(key, value, each) for each in arguments]
        if None in mismatches:
            return None
        inner = [found for found in mismatches if found is not None and found.key != key]
        choices = [choice for found in mismatches if found is not None for choice in found.choices]
        return inner[0] if len(inner) == 1 else Mismatch(key, describe(kind), value, choices)
    if origin is Literal:
        fits = any(type(value) is type(each) and value == each for each in arguments)
        return None if fits else Mismatch(key, describe(kind), value, [str(each) for each in arguments])
    if typing.is_typeddict(kind):
        return _find_in_keys(key, value, kind)
    if kind is not Any and isinstance(origin or kind, type):
        return _find_in_class(key, value, origin or kind, arguments)
    return None  # Any, a callable, a type variable: every value is accepted


def _find_in_keys(key: str, value: Any, kind: Any) -> Mismatch | None:
    if not isinstance(value, Mapping):
        return Mismatch(key, describe(kind), value)
    prefix = f"{key}." if key else ""
    for name, inner in _hints(kind).items():
        if name in value:
            if (found := find_mismatch(f"{prefix}{name}", value[name], inner)) is not None:
                return found
        elif name in kind.__required_keys__:
            return Mismatch(f"{prefix}{name}", describe(inner), None, missing=True)
    return None


def _find_in_class(key: str, value: Any, kind: type, arguments: tuple[Any, ...]) -> Mismatch | None:
    wrong = Mismatch(key, describe(kind), value)
    if kind in SCALARS:
        return None if SCALARS[kind][0](value) else wrong
    if issubclass(kind, Mapping):
        if not isinstance(value, Mapping):
            return wrong
        inner = arguments[1] if len(arguments) == 2 else Any
        return next((m for name in value if (m := find_mismatch(f"{key}.{name}", value[name], inner))), None)
    if kind is tuple and arguments and ... not in arguments:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            return Mismatch(key, f"a list of {len(arguments)} values", value)
        pairs = zip(value, arguments, strict=True)
        return next((m for i, (v, a) in enumerate(pairs) if (m := find_mismatch(f"{key}[{i}]", v, a))), None)
    if issubclass(kind, Iterable) and not issubclass(kind, enum.Enum) and kind.__module__ in CONTAINERS:
        if not isinstance(value, list | tuple):
            return wrong
        inner = arguments[0] if arguments else Any
        return next((m for i, v in enumerate(value) if (m := find_mismatch(f"{key}[{i}]", v, inner))), None)
    if kind is object or isinstance(value, kind) or (isinstance(value, Mapping) and "_target_" in value):
        return None
    if issubclass(kind, enum.Enum) or getattr(kind, "_is_protocol", False) or kind.__module__ == "collections.abc":
        return None  # a text may be converted to it
    return None if issubclass(kind, os.PathLike) and isinstance(value, str) else wrong


CONTAINERS = ("builtins", "collections.abc", "collections", "typing")
SCALARS: dict[type, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda v: isinstance(v, bool), "true or false"),
    int: (lambda v: isinstance(v, int) and not isinstance(v, bool), "an integer"),
    float: (lambda v: isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v), "a number"),
    str: (lambda v: isinstance(v, str), "a text"),
    type(None): (lambda v: v is None, "null"),
}


def describe(kind: Any) -> str:
    """Return the values that fit an annotation as words, such as `an integer of 1 or more, or null`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Required, NotRequired):
        return describe(arguments[0])
    if origin is Annotated:
        words = [each for each in arguments[1:] if isinstance(each, str)]
        ranges = " and ".join(str(each) for each in arguments[1:] if isinstance(each, Range))
        return words[0] if words else f"{describe(arguments[0])} {ranges}".strip()
    if origin in (Union, types.UnionType):
        plain = [each for each in arguments if not _is_other_class(each)]
        parts = list(dict.fromkeys(describe(each) for each in plain or arguments))
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, or {parts[-1]}"
    if origin is Literal:
        choices = [show(each) for each in arguments]
        return " or ".join(choices) if len(choices) < 3 else f"one of {', '.join(choices)}"
    found = origin or kind
    if found in SCALARS:
        return SCALARS[found][1]
    if typing.is_typeddict(found) or (isinstance(found, type) and issubclass(found, Mapping)):
        return "a group of keys"
    if isinstance(found, type) and issubclass(found, os.PathLike):
        return "a path"
    if isinstance(found, type) and issubclass(found, Iterable) and found.__module__ in CONTAINERS:
        return "a list"
    return f"a group of keys with a _target_ ({getattr(found, '__name__', found)})"


def _is_other_class(kind: Any) -> bool:
    found = get_origin(kind) or kind
    return isinstance(found, type) and describe(kind).startswith("a group of keys with")


def show(value: Any) -> str:
    """Return a value as YAML writes it, in one line of limited length."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    text = text if text.isprintable() and text.strip() else repr(text)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the annotations of a TypedDict, a class's constructor or a function; those that cannot be read are Any."""
    owner: Any = kind
    if isinstance(kind, type) and not typing.is_typeddict(kind):
        owner = getattr(kind, "__init__")  # noqa: B009  # mypy rejects the attribute
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except Exception:  # an annotation may name what only a type checker imports
        return {}


def check_call(
    key: str,
    arguments: Mapping[str, Any],
    target: Callable[..., Any],
    *,
    positional: int = 0,
    given: Collection[str] = (),
    checked: Collection[str] = (),
) -> None:
    """Check the arguments in a config node against the signature of the class or function that it names.

    `**_` in a signature does not accept further keys: it receives what agebench passes to every such object.

    Args:
        key: The dotted key of the node.
        arguments: The node as plain data, without the keys in `checked` and those of Hydra.
        target: The class or function.
        positional: Number of positional arguments that agebench passes.
        given: Keyword arguments that agebench passes.
        checked: Keyword arguments that need no check.

    Raises:
        UserError: If an argument is unknown, missing, or has a value that does not fit its annotation, or if the target
            does not take an argument that agebench passes.
    """
    if not callable(target):
        raise UserError(f"{key}._target_ must be the name of a class or function, got {show(target)}")
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except ValueError:  # some built-in functions have no signature
        return
    is_open = any(p.kind is p.VAR_KEYWORD and not p.name.startswith("_") for p in parameters)
    named = [p for p in parameters[positional:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = {p.name for p in named}
    hints = _hints(target)
    name = getattr(target, "__name__", str(target))
    refused = [] if any(p.kind is p.VAR_KEYWORD for p in parameters) else [each for each in given if each not in known]
    if refused:
        raise UserError(
            f"{key}: {name} must take the arguments {', '.join(given)}, which agebench passes; it takes "
            f"{', '.join(p.name for p in named) or 'none'}"
        )
    for argument, value in arguments.items():
        if argument in given:
            raise UserError(f"{key}.{argument} is set by agebench: remove it")
        if argument not in known and not is_open:
            raise UserError(f"{name} has no argument {key}.{argument}{did_you_mean(argument, known)}: remove it")
        check(f"{key}.{argument}", value, hints.get(argument, Any))
    for each in named:
        if each.default is each.empty and each.name not in {*arguments, *given, *checked}:
            kind = hints.get(each.name, Any)
            needed = f"{name} has no default for it" if kind is Any else f"it must be {describe(kind)}"
            raise UserError(f"{key}.{each.name} is missing: {needed}")
