"""Every YAML file in conf/ composes, and its values are valid."""

from pathlib import Path

from agebench.testing import check_config


def test_every_config_is_valid() -> None:
    """Descriptions, known keys, values that fit."""
    check_config(Path(__file__).parent / "conf")
