"""The head and its YAML keep the contracts of agebench."""

from pathlib import Path

from agebench.testing import check_config, check_head


def test_the_head_keeps_the_contract() -> None:
    """Shapes, sums, gradients, extreme outputs, decoding, precision."""
    check_head("my_head.MyHead")


def test_the_yaml_fits_the_head() -> None:
    """A description, and keys that the constructor takes."""
    check_config(Path(__file__).parent / "conf" / "head" / "my_head.yaml")
