"""What several tests need."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real data, or skip: tests that ask for it are marked `data`."""
    named = os.environ.get("AGEBENCH_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set AGEBENCH_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def conf() -> Path:
    """Return the folder of the configs."""
    return REPOSITORY / "conf"
