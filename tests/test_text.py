"""Tables and durations as plain text."""

import pytest

from agebench.text import align_columns, format_duration


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    lines = align_columns(["name", "n"], [["a", "12345"], ["longer", ""]], [False, True])

    assert ["|".join(line) for line in lines] == ["name  |    n", "a     |12345", "longer|     "]


def test_columns_have_a_minimum_width() -> None:
    lines = align_columns(["a", "long"], [["b", "c"]], [True, False], min_width=3)

    assert lines == [["  a", "long"], ["  b", "c   "]]


def test_a_row_with_too_few_cells_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        align_columns(["a", "b"], [["c"]], [False, False])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (86_399, "23:59:59"), (360_000, "100:00:00")],
)
def test_a_duration_is_hours_minutes_and_seconds(seconds, text) -> None:
    assert format_duration(seconds) == text
