"""The check of the cache folder."""

import os
from pathlib import Path

import pytest

from agebench.data.cache import check_cache
from agebench.errors import UserError


def test_a_cache_below_a_read_only_folder_is_refused_before_it_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere

    with pytest.raises(UserError, match=f"cannot be created, because {tmp_path} is not writable"):
        check_cache(tmp_path / "new" / "cache", "digits")

    assert list(tmp_path.iterdir()) == []


def test_an_existing_cache_may_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    check_cache(tmp_path, "digits")


@pytest.mark.parametrize("path", ["/", "/etc", "/usr/../usr", "/tmp/../.."])
def test_a_folder_of_the_system_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="is a folder of the system: choose a folder of your own"):
        check_cache(Path(path), "digits")


@pytest.mark.parametrize("name", ["../digits", "/tmp/digits", "a/../../b"])
def test_the_name_of_a_data_set_does_not_lead_out_of_the_cache(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"data.name must be a name without \.\."):
        check_cache(tmp_path, name)
