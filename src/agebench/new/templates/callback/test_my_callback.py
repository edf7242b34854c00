"""The callback logs what it promises, and its YAML keeps the contract of agebench."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from agebench.testing import check_config


class Still(LightningModule):
    """A module with the weights 3 and 4, which a training does not change."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Return a loss."""
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an optimizer that does nothing."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore")  # of Lightning, about a training of one step
def test_the_norm_of_the_weights_is_logged() -> None:
    """The norm of (3, 4) is 5."""
    callback = import_module("my_callback").MyCallback()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    trainer.fit(Still(), DataLoader(TensorDataset(torch.zeros(1, 1))))

    assert trainer.callback_metrics["train/weight_norm"] == pytest.approx(5.0)


def test_the_yaml_fits_the_callback() -> None:
    """A description, and keys that the constructor takes."""
    check_config(Path(__file__).parent / "conf" / "callbacks" / "my_callback.yaml")
