"""The augmentation and its YAML keep the contracts of agebench."""

from pathlib import Path

from agebench.testing import check_augmentation, check_config


def test_the_augmentation_keeps_the_contract() -> None:
    """Shapes, range, seed, precision."""
    check_augmentation("my_augment.MyAugment", sigma=0.1)


def test_the_yaml_fits_the_augmentation() -> None:
    """A description, and keys that the constructor takes."""
    check_config(Path(__file__).parent / "conf" / "augment" / "my_augment.yaml")
