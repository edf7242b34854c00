"""Checkpoints are written completely or not at all."""

import io
from pathlib import Path

import pytest
import torch

from agebench.training.checkpoints import AtomicCheckpointIO


@pytest.mark.parametrize("call", range(1, 8))  # the first calls write the names, the data and the end of the file
def test_an_interrupt_while_a_checkpoint_is_written_stays_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    AtomicCheckpointIO(tmp_path).save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    writes = 0

    class Interrupted(io.FileIO):
        def write(self, data: object) -> int:
            nonlocal writes
            writes += 1
            if writes == call:
                raise KeyboardInterrupt
            return super().write(data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Interrupted(path, mode))
        with pytest.raises(KeyboardInterrupt):
            AtomicCheckpointIO(tmp_path).save_checkpoint({"weight": torch.zeros(30)}, tmp_path / "last.ckpt")

    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
