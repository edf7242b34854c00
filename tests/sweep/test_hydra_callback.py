"""The name of a sweep, and its folder in the session."""

import pytest

from agebench.sweep.hydra_callback import sweep_name

CHOICES = {"data": "cacd", "model": "convnext", "head": "coral", "optim": "adam"}


@pytest.mark.parametrize(
    ("swept", "expected"),
    [
        ({"optim.lr", "seed"}, "cacd_convnext-coral_T"),
        ({"model"}, "cacd_coral_T"),
        ({"data", "head"}, "convnext_T"),
        ({"data", "model", "head"}, "T"),
        ({"experiment"}, "T"),
    ],
)
def test_a_sweep_is_named_after_the_choices_that_all_points_share(swept, expected) -> None:
    assert sweep_name(CHOICES, swept, "T") == expected
