"""The data set and its YAML keep the contracts of agebench."""

from pathlib import Path

from agebench.testing import check_config, check_source


def test_the_source_keeps_the_contract(tmp_path: Path) -> None:
    """Records, labels, images, threads, stamps."""
    check_source("my_data.MyData", root=str(tmp_path / "images"))


def test_the_yaml_fits_the_source() -> None:
    """A description, and keys that the constructor takes."""
    check_config(Path(__file__).parent / "conf" / "data" / "my_data.yaml")
