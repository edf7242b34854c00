"""Runs with a moving average of the weights."""

import json

import pytest
import torch

from agebench import build
from agebench.training import parts
from agebench.training.fit import fit

RECORDED: list[list[torch.Tensor]] = []


class Recording(torch.optim.SGD):
    """SGD that records the initial parameters and those after each step."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, lr=lr)
        RECORDED[:] = []
        self.record()

    def record(self) -> None:
        RECORDED.append([p.detach().clone() for group in self.param_groups for p in group["params"]])

    def step(self, closure=None):
        loss = super().step(closure)
        self.record()
        return loss


@pytest.fixture(params=["many steps a call", "single steps"])
def run(request, compose_config, tmp_path, monkeypatch):
    """Return the folder and the config of a run with an average."""
    torch.optim.SGD([torch.zeros(1)])  # from now on, torch calls the hooks in the `step` of Recording and of SGD
    if request.param == "single steps":
        monkeypatch.setattr(parts, "can_multi_step", lambda *args: False)
    config = compose_config(
        "data=digits",
        "data.limit=400",
        "data.batch_size=100",
        "model.hidden=[16]",
        "model.batch_norm=false",
        "trainer.max_epochs=3",
        "trainer.accelerator=cpu",
        "ema.decay=0.8",
        "test_checkpoint=last",
        "callbacks.progress=null",
        "report=false",
    )
    monkeypatch.setattr(torch.optim, "SGD", Recording)
    config.optim = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}
    fit(config, tmp_path)
    return tmp_path, config


def test_the_checkpoint_and_the_test_have_the_average_of_the_weights_after_each_step(run) -> None:
    folder, config = run
    expected = [p.double() for p in RECORDED[0]]
    for step, parameters in enumerate(RECORDED[1:], start=1):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * p.double() for e, p in zip(expected, parameters, strict=True)]

    stored = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    module = build.build_trained(config, stored)
    data = build.build_data(config)
    test = data.part("test")[torch.arange(data.plan.counts["test"])]
    module.eval()
    with torch.no_grad():
        loss = module.head.loss(module(test.images), test.target)

    assert len(RECORDED) == 1 + 3 * 4  # 320 images in 4 steps an epoch
    torch.testing.assert_close([p.double() for p in module.parameters()], expected, rtol=1e-5, atol=1e-6)
    trained = [stored["average"]["trained"][name] for name, _ in module.named_parameters()]
    torch.testing.assert_close(trained, RECORDED[-1], rtol=0, atol=0)
    metrics = json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["test/loss"] == pytest.approx(loss.item(), rel=1e-5)
