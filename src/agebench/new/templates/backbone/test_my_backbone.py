"""The backbone and its YAML keep the contracts of agebench."""

from pathlib import Path

from agebench.testing import check_backbone, check_config


def test_the_backbone_keeps_the_contract() -> None:
    """Shapes, gradients, evaluation, weights."""
    check_backbone("my_backbone.MyBackbone", width=8)


def test_the_yaml_fits_the_backbone() -> None:
    """A description, and keys that the constructor takes."""
    check_config(Path(__file__).parent / "conf" / "model" / "my_backbone.yaml")
