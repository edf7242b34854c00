"""Plot style of all figures: rc parameters, colours for colour blindness, and a font with Japanese glyphs."""

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

# Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, without yellow, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# 11 and 7 are coprime, so 77 labels have different pairs of marker and colour.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
GREY = "#767676"

RC_PARAMS: dict[Any, Any] = {
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
    "text.parse_math": False,  # a class name may be `$5_bill$`
}


@cache
def japanese_font() -> Path | None:
    """Register the IPAexGothic font of matplotlib_fontja and return its path; None if it is not installed."""
    spec = find_spec("matplotlib_fontja")  # not imported: its import changes the font of the process
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "fonts" / "ipaexg.ttf"
    if not path.is_file():
        return None
    fontManager.addfont(path)
    return path


@contextmanager
def plot_style() -> Iterator[None]:
    """Context manager with the plot style of agebench; create, draw and save figures inside it."""
    families = ["DejaVu Sans"]
    path = japanese_font()
    if path is not None:
        families.append(FontProperties(fname=path).get_name())  # fallback for glyphs that DejaVu Sans lacks
    with matplotlib.rc_context({**RC_PARAMS, "font.family": families}):
        yield


def monospace(size: float) -> FontProperties:
    """Return a font for aligned columns of text; glyphs that it lacks are taken from the other fonts."""
    return FontProperties(family=["DejaVu Sans Mono", *matplotlib.rcParams["font.family"]], size=size)


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of a size in inches with a title; pyplot does not keep a reference to it."""
    figure = Figure(figsize=(width, height))
    figure.suptitle(textwrap.fill(printable(title), width=max(int(width * 12), 20)), fontsize=9, color=GREY)
    return figure


def add_finding(figure: Figure, finding: str) -> None:
    """Write the finding or question of a figure of several panels below its title."""
    width = max(int(figure.get_figwidth() * 14), 20)
    figure.suptitle(f"{figure.get_suptitle()}\n{textwrap.fill(printable(finding), width)}", fontsize=9, color="#444444")


def add_note(figure: Figure, note: str) -> None:
    """Write a warning below a figure; an empty note adds nothing."""
    if note:
        width = max(int(figure.get_figwidth() * 12), 20)
        text = textwrap.fill(printable(note), width=width)
        figure.supxlabel(text, fontsize=9, color=COLOURS[1], x=0.01, ha="left")


def printable(name: str, most: int = 200) -> str:
    """Return a name for one line of text: without control characters, at most `most` characters."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def label_ticks(values: Array, *, ordered: bool, most: int) -> Sequence[int]:
    """Return the label indices for the ticks of an axis: all if they fit, else every 2nd, 5th, 10th, ... value.

    Args:
        values: Value of each label, shape (R,).
        ordered: Whether to prefer round values (20, 25, 30 rather than 14, 19, 24).
        most: Maximum number of ticks.
    """
    count = len(values)
    steps = (m * 10**e for e in range(10) for m in (1, 2, 5))
    step = next(s for s in steps if count <= s * most)
    round_values = np.flatnonzero(np.mod(values, step) == 0)
    if ordered and step > 1 and 0 < len(round_values) <= most:
        return [int(i) for i in round_values]
    return range(0, count, step)
