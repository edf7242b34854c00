import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from agebench.report.style import COLOURS, MARKERS, label_ticks, plot_style, printable

HIRAGANA = "".join(chr(code) for code in range(0x3041, 0x3097))


def draw_text(text: str, path: Path) -> None:
    with plot_style():
        figure = Figure()
        figure.text(0.1, 0.5, text)
        figure.savefig(path)


@pytest.mark.filterwarnings("error")
def test_every_hiragana_has_a_glyph(tmp_path: Path) -> None:
    draw_text(HIRAGANA, tmp_path / "kana.png")

    assert (tmp_path / "kana.png").stat().st_size > 10_000


def test_a_missing_glyph_gives_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="missing from font"):
        draw_text("\U00012000", tmp_path / "cuneiform.png")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$5_bill$", "$\\frac$", "_hidden", "a\nb", "caf\udce9", "x" * 300])
def test_any_class_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    draw_text(printable(name, 20), tmp_path / "name.png")

    assert (tmp_path / "name.png").is_file()


def test_rc_parameters_are_restored_afterwards(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    imported = "matplotlib_fontja" in sys.modules

    draw_text("あ", tmp_path / "a.png")

    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib_fontja" in sys.modules) == imported


def test_77_labels_differ_in_colour_or_marker() -> None:
    pairs = {(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i in range(77)}

    assert len(pairs) == 77


def test_ages_have_a_tick_every_five_years() -> None:
    ages = np.arange(14.0, 63.0)

    ticks = label_ticks(ages, ordered=True, most=20)

    assert ages[list(ticks)].tolist() == [15, 20, 25, 30, 35, 40, 45, 50, 55, 60]


@pytest.mark.parametrize("count", [1, 2, 20, 21, 73, 1_000])
def test_the_number_of_ticks_never_exceeds_the_maximum(count: int) -> None:
    for ordered in (True, False):
        assert 1 <= len(label_ticks(np.arange(count) + 0.5, ordered=ordered, most=20)) <= 20


def test_few_labels_all_have_a_tick() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(label_ticks(np.arange(1.0, 7.0), ordered=True, most=20)) == [0, 1, 2, 3, 4, 5]
