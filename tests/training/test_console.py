"""What the console says before the first step."""

from collections.abc import Callable
from typing import Any

import pytest

from agebench.training.console import describe_extras


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ((), ""),
        (("augment.mixup=0.2",), "augment.mixup=0.2 for 100% of the batches"),
        (
            ("augment.mixup=0.2", "augment.cutmix=1.0", "augment.mix_probability=0.5", "ema.decay=0.99"),
            "augment.mixup=0.2 or augment.cutmix=1.0 for 50% of the batches; the moving average of the weights "
            "(ema.decay=0.99), which is tested",
        ),
        (
            ("swa.start=0.75", "teacher.run=outputs/a", "trainer.max_time=00:00:10:00"),
            "the average of the weights from swa.start=0.75 on, which is tested; the teacher outputs/a (weight 0.5); "
            "at most trainer.max_time=00:00:10:00",
        ),
    ],
)
def test_what_is_added_to_plain_training_is_one_line(
    compose_config: Callable[..., Any], overrides: tuple[str, ...], line: str
) -> None:
    assert describe_extras(compose_config("data=digits", "model=mlp", *overrides)) == line
