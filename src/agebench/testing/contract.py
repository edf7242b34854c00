"""The error of a broken contract, and how a check builds what it checks."""

from collections.abc import Callable, Mapping
from typing import Any

from agebench.build.nodes import find_target

Target = str | Callable[..., Any]  # a dotted name, as `_target_` in a YAML, or the class or function itself


class ContractError(AssertionError):
    """A class or a config breaks the contract of its kind. The message is the contract and what came instead."""


def require(holds: bool, contract: str, got: object) -> None:
    """Raise ContractError unless the contract holds.

    Args:
        holds: Whether it holds.
        contract: What must be true, as a sentence.
        got: What came instead.
    """
    if not holds:
        raise ContractError(f"{contract}; got {got}")


def build(kind: str, target: Target, *given: Any, signature: str, options: Mapping[str, Any], **named: Any) -> Any:
    """Return the object that a target builds from the arguments that agebench passes and the options of its YAML.

    Args:
        kind: `backbone`, `head`, ..., for messages.
        target: A dotted name, or the class or function.
        given: The positional arguments that agebench passes.
        signature: The arguments that agebench passes, for messages.
        options: The keys of the YAML.
        named: The keyword arguments that agebench passes.

    Raises:
        ContractError: If the target does not take these arguments.
        UserError: If the target does not exist, or refuses the arguments.
    """
    make = find_target(kind, target) if isinstance(target, str) else target
    try:
        return make(*given, **named, **options)
    except TypeError as error:
        raise ContractError(f"a {kind} must take {signature}; got the error: {error}") from error
