"""A run whose loss becomes NaN: its status, and the file that reproduces the step."""

import json
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from agebench import build
from agebench.errors import FailedError
from agebench.models.mlp import MLP
from agebench.training import parts
from agebench.training.fit import fit

LINE = (
    "data=digits",
    "data.limit=400",
    "data.batch_size=100",
    "augment=digits",
    "model.hidden=[16]",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
    f"model._target_={__name__}.Fragile",
)  # 320 training images, 4 steps per epoch


class Fragile(MLP):
    """Outputs NaN for some augmented images, which depend on the random numbers: in steps 6 and 11 of these runs."""

    def forward(self, images):
        outputs = super().forward(images)
        drawn = float(images.double().sum()) * 1e3 % 1
        return outputs * math.nan if self.training and drawn > 0.85 else outputs


def run(config, folder: Path) -> dict:
    fit(config, folder)
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("multi", [True, False])
def test_a_run_that_stops_keeps_the_last_good_epoch_and_a_file_that_reproduces_the_step(
    compose_config, tmp_path, monkeypatch, multi
) -> None:
    if not multi:
        monkeypatch.setattr(parts, "can_multi_step", lambda *args: False)
    config = compose_config(*LINE)

    with pytest.raises(FailedError, match=r"the loss is nan at step \d+ .*; the images are ") as raised:
        run(config, tmp_path)

    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (found["status"], found["error"]) == ("failed", str(raised.value))
    stored = torch.load(tmp_path / "nan.pt", weights_only=True)
    assert stored["epoch"] >= 1
    for name in ("best", "last"):
        kept = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert kept["epoch"] < stored["epoch"]
        assert all(bool(tensor.isfinite().all()) for tensor in kept["state_dict"].values())
    assert stored["checkpoint"] == str(tmp_path / "checkpoints" / "last.ckpt")
    again = OmegaConf.create(stored["config"])
    data = build.build_data(again)
    module = build.build_module(again, data).train()
    module.load_state_dict(stored["state_dict"])
    torch.set_rng_state(stored["rng"]["cpu"])
    (rows,) = stored["rows"]
    loss, _ = module.batch_loss(data.part("train")[rows])
    assert loss.isnan()
    plan = data.plan
    assert stored["names"] == [str(plan.records.names[plan.split.train[row]]) for row in rows]
    assert all(name in str(raised.value) for name in stored["names"][:8])


def test_skipped_steps_are_counted_in_the_results_and_named_at_the_end_of_their_epoch(
    compose_config, tmp_path, caplog
) -> None:
    found = run(compose_config(*LINE, "on_nan=skip"), tmp_path)

    lines = [record.getMessage() for record in caplog.records if "were left out" in record.getMessage()]
    named = [int(step) for line in lines for step in line.partition("(steps ")[2].rstrip(")").split(", ")]
    assert found["status"] == "completed"
    assert found["skipped_steps"] == len(named) > 0
    assert named == sorted(set(named))
    assert not (tmp_path / "nan.pt").exists()


def test_repeating_a_stopped_run_with_skip_resumes_it(compose_config, tmp_path) -> None:
    with pytest.raises(FailedError):
        run(compose_config(*LINE), tmp_path / "stopped")

    resumed = run(compose_config(*LINE, "on_nan=skip"), tmp_path / "stopped")

    whole = run(compose_config(*LINE, "on_nan=skip"), tmp_path / "whole")
    assert resumed["resumed"] == 1
    assert not (tmp_path / "stopped" / "nan.pt").exists()
    assert (resumed["metrics"], resumed["skipped_steps"]) == (whole["metrics"], whole["skipped_steps"])
