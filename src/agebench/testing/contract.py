"""How a check builds and runs what it checks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agebench.build.nodes import find_target
from agebench.contract import ContractError
from agebench.errors import UserError
from agebench.user_code import describe, place

Target = str | Callable[..., Any]  # a dotted name, as `_target_` in a YAML, or the class or function itself


@contextmanager
def working(contract: str) -> Iterator[None]:
    """Context manager: raise ContractError from any exception of the block, except UserError.

    Args:
        contract: What the block requires, as a sentence: `a backbone must work for a batch of 1 grey image ...`.
    """
    try:
        yield
    except (ContractError, UserError):
        raise
    except Exception as error:
        raise ContractError(f"{contract}; it raised {describe(error)}") from error


def images_of(shape: Sequence[int]) -> str:
    """Return the shape (B, C, S, S) of images as words, such as `a batch of 1 grey image of 64 x 64 px`."""
    count, channels, height, width = shape
    images = f"{'grey' if channels == 1 else 'colour'} image{'' if count == 1 else 's'}"
    return f"a batch of {count} {images} of {height} x {width} px"


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
        ContractError: If the target does not take these arguments, or raises an exception.
        UserError: If the target does not exist, or refuses the arguments.
    """
    make = find_target(kind, target) if isinstance(target, str) else target
    takes = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} must take {signature}"
    with working(takes):
        try:
            return make(*given, **named, **options)
        except TypeError as error:
            if place(error):  # the arguments fit, and the constructor failed
                raise
            raise ContractError(f"{takes}; got the error: {error}") from error
