"""The experiment composes, and its values are valid."""

from pathlib import Path

from agebench.testing import check_config


def test_the_experiment_is_valid() -> None:
    """A description, known keys, values that fit."""
    check_config(Path(__file__).parent / "conf" / "experiment" / "my_experiment.yaml")
