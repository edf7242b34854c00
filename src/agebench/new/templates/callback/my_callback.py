"""A callback that takes part in agebench as callbacks=my_callback."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class MyCallback(Callback):
    """Logs the norm of all weights at the end of each training epoch.

    Args:
        name: The name of the curve; a key of conf/callbacks/my_callback.yaml.
    """

    def __init__(self, *, name: str = "train/weight_norm") -> None:
        self.name = name

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the norm. A hook of the step, such as on_train_batch_end, would make small networks slower."""
        weights = torch.cat([weight.detach().float().flatten() for weight in pl_module.parameters()])
        pl_module.log(self.name, weights.norm())
