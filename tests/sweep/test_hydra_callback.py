"""What a sweep is called."""

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
def test_a_sweep_is_named_by_what_all_of_its_points_share(swept, expected) -> None:
    assert sweep_name(CHOICES, swept, "T") == expected
