"""The look that all pictures share: one rc dict, colours for every eye, and a font that has hiragana."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager

from agebench.report.outcome import Array

# Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, without the yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# 11 shapes and 7 colours share no factor, so 77 labels differ in one or the other.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
GREY = "#767676"

LOOK: dict[Any, Any] = {
    "figure.dpi": 150,
    "savefig.dpi": "figure",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "text.usetex": False,
    "text.parse_math": False,  # a class may be called `$5_bill$`
}


@cache
def japanese_font() -> Path | None:
    """Return the IPAexGothic file that matplotlib_fontja brings, and tell matplotlib of it; None if absent."""
    spec = find_spec("matplotlib_fontja")  # found, not imported: its import changes the font of the whole process
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "fonts" / "ipaexg.ttf"
    if not path.is_file():
        return None
    fontManager.addfont(path)
    return path


@contextmanager
def look() -> Iterator[None]:
    """Create, draw and save figures in agebench's look; the settings outside are left as they were."""
    families = ["DejaVu Sans"]
    path = japanese_font()
    if path is not None:
        families.append(FontProperties(fname=path).get_name())  # asked for what the first family lacks
    with matplotlib.rc_context({**LOOK, "font.family": families}):
        yield


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of a size in inches, outside pyplot's list of open figures, under the run's title."""
    figure = Figure(figsize=(width, height))
    figure.suptitle(textwrap.fill(printable(title), width=max(int(width * 12), 20)), fontsize=9, color=GREY)
    return figure


def add_note(figure: Figure, note: str) -> None:
    """Write a note below a figure in the colour of a warning; nothing if it is empty."""
    if note:
        width = max(int(figure.get_figwidth() * 12), 20)
        text = textwrap.fill(printable(note), width=width)
        figure.supxlabel(text, fontsize=9, color=COLOURS[1], x=0.01, ha="left")


def printable(name: str, most: int = 200) -> str:
    """Return a name that can be drawn on one line: no control characters, at most `most` characters."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def label_ticks(values: Array, *, ordered: bool, most: int) -> Sequence[int]:
    """Return the label indices to name on an axis: all if they fit, else every 2nd, 5th, 10th, ... value.

    Args:
        values: What each label stands for, shape (R,).
        ordered: Whether to prefer round values (20, 25, 30 rather than 14, 19, 24).
        most: How many names the axis has room for.
    """
    count = len(values)
    steps = (m * 10**e for e in range(10) for m in (1, 2, 5))
    step = next(s for s in steps if count <= s * most)
    round_ones = np.flatnonzero(np.mod(values, step) == 0)
    if ordered and step > 1 and 0 < len(round_ones) <= most:
        return [int(i) for i in round_ones]
    return range(0, count, step)
