"""Exceptions of the user's own code, as sentences with the input and with the file and line.

Own code is every file outside agebench, the standard library and the installed packages.
"""

import inspect
import os
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from agebench.errors import OUT_OF_MEMORY, FailedError, UserError, chain, is_out_of_memory, one_line_message

# agebench with its Hydra plugins, and the standard library.
LIBRARIES = (Path(__file__).parent, Path(__file__).parents[1] / "hydra_plugins", Path(os.__file__).parent)
INSTALLED = {"site-packages", "dist-packages"}
MAX_MESSAGE = 300  # characters of the message of a library


def place(error: BaseException) -> str:
    """Return ` at FILE:LINE`, the innermost line of the user's own code that raised an exception; empty if none did."""
    return _own(error)[1]


def describe(error: BaseException) -> str:
    """Return type, message and place of an exception: `RuntimeError: no such layer at mynets/senet.py:54`."""
    raised, where = _own(error)
    return f"{type(raised).__name__}: {one_line_message(raised)[:MAX_MESSAGE].rstrip('.')}{where}"


def explain_own(error: BaseException) -> str:
    """Return a sentence about an exception of the user's own code, with the tensors that it was given; empty if none.

    Example: `SENet.forward failed on x of shape (2, 1, 28, 28), float32: RuntimeError: ... at mynets/senet.py:54`.
    """
    raised, where = _own(error)
    if not where:
        return ""
    frames = [frame for frame, _ in traceback.walk_tb(raised.__traceback__)]
    first = _own_indices(frames)[0]
    inputs = _inputs(frames[first], frames[first - 1])
    call = frames[first].f_code.co_qualname
    return f"{call} failed{inputs}: {describe(error)} (HYDRA_FULL_ERROR=1 shows the traceback)"


def reason(error: BaseException) -> str:
    """Return the message of the first exception in the chain that is for the user, else type, message and place."""
    for found in chain(error):
        if isinstance(found, UserError | FailedError):
            return str(found)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    return describe(error)


def _own(error: BaseException) -> tuple[BaseException, str]:
    """Return the exception of a chain that the user's own code raised, and its place; else the error and no place."""
    for link in chain(error):
        steps = list(traceback.walk_tb(link.__traceback__))
        if own := _own_indices([frame for frame, _ in steps]):
            frame, line = steps[own[-1]]
            return link, f" at {shown(frame.f_code.co_filename)}:{line}"
    return error, ""


def _own_indices(frames: list[FrameType]) -> list[int]:
    """Return the indices of the frames of own code that a library called. A script that calls agebench is not one."""
    own = [is_own(frame.f_code.co_filename) for frame in frames]
    first = own.index(False) if False in own else len(own)
    return [i for i in range(first, len(own)) if own[i]]


def is_own(file: str) -> bool:
    """Return whether a file of code is the user's own."""
    path = Path(file)
    is_generated = file.startswith("<")  # such as the code of a frozen module or of torch.fx
    return not is_generated and INSTALLED.isdisjoint(path.parts) and not any(map(path.is_relative_to, LIBRARIES))


def defined_in(part: object) -> str:
    """Return ` (FILE)`, the user's own file that defines an object's class, or a class or function; empty if none does.

    Example: ` (mynets/senet.py)`.
    """
    defined = part if inspect.isclass(part) or inspect.isroutine(part) else type(part)
    try:
        file = inspect.getsourcefile(defined)
    except TypeError:  # of a class that is part of Python
        return ""
    return f" ({shown(file)})" if file and is_own(file) else ""


def shown(file: str) -> str:
    """Return the path of a file, relative to the working directory if it is in there."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _inputs(frame: FrameType, caller: FrameType) -> str:
    """Return the tensors and arrays among the arguments of a call, as ` on x of shape (2, 3), float32`."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    values: dict[str, Any] = {name: frame.f_locals.get(name) for name in names}
    if caller.f_code.co_name == "_call_impl":  # of torch.nn.Module; the call may have assigned new values to the names
        values |= dict(zip(names[1:], caller.f_locals.get("args", ()), strict=False))
    shown = [
        f"{name} of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
        for name, value in values.items()
        if isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype")
    ]
    return f" on {' and '.join(shown)}" if shown else ""
