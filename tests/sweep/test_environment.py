"""Environment variables that are set for a limited time."""

import os
from contextlib import suppress

import pytest

from agebench.sweep.environment import set_variable


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("value", [None, "new"])
def test_a_variable_is_set_or_removed_and_restored_after_an_error(monkeypatch, before, value) -> None:
    monkeypatch.delenv("AGEBENCH_TEST_VARIABLE", raising=False)
    if before is not None:
        monkeypatch.setenv("AGEBENCH_TEST_VARIABLE", before)

    with suppress(RuntimeError), set_variable("AGEBENCH_TEST_VARIABLE", value):
        inside = os.environ.get("AGEBENCH_TEST_VARIABLE")
        raise RuntimeError

    assert inside == value
    assert os.environ.get("AGEBENCH_TEST_VARIABLE") == before
