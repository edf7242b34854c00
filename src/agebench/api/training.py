"""Train in the process of a notebook or a script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agebench.api.process import errors_as_exceptions, log_messages
from agebench.api.run import Run
from agebench.api.settings import to_overrides
from agebench.cli.compose import composed
from agebench.errors import UserError


def train(*overrides: str, config_dir: str | Path | None = None, **settings: Any) -> Run:
    """Train a model, test it, and return the run, as `python -m agebench.train` does.

    A finished run of the same config in the same folder (`hydra.run.dir`) is returned without a training. The random
    numbers of torch, NumPy and Python are seeded with `seed`.

    Args:
        overrides: Choices and keys as on the command line: `"data=digits"`, `"optim.lr=0.01"`, `"data/split=kfold"`.
        config_dir: A folder with your own YAML files, as after `--config-dir`.
        settings: Choices and keys as Python values: `data="digits"`, `trainer={"max_epochs": 2}`, `seed=1`.

    Raises:
        UserError: If a key, a value or the data is wrong. The message says how to fix it.
        FailedError: If the training diverged.
        KeyboardInterrupt: If it is interrupted. The finished epochs are kept: the same call with the same
            `hydra.run.dir` resumes.

    Examples:
        >>> run = train("data=digits", "model=small_cnn", trainer={"max_epochs": 5}, optim={"lr": 0.002})
        ... # doctest: +SKIP
        >>> run.metrics["accuracy"], run.intervals["accuracy"]  # doctest: +SKIP
        (0.9778, (0.95, 0.9944))
    """
    typed = to_overrides("config", overrides, settings)
    with errors_as_exceptions(), composed("config", typed, config_dir=_folder(config_dir)) as cfg:
        from hydra.core.hydra_config import HydraConfig

        from agebench.train import train as run_train

        if cfg.resume not in ("auto", True, False, None):
            raise UserError(f"resume={cfg.resume} is for the command: repeat the call with its hydra.run.dir instead")
        if cfg.lr_find:
            raise UserError("lr_find=true is for the command, because it is no training: python -m agebench.train")
        if not _is_one_process(cfg.trainer):
            raise UserError(
                f"trainer.devices={cfg.trainer.devices} may start processes, which needs the command: use "
                "python -m agebench.train, or trainer.devices=1"
            )
        folder = Path(HydraConfig.get().runtime.output_dir)
        with log_messages(folder / "train.log"):
            run_train(cfg)
        return Run(folder)


def _folder(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def _is_one_process(trainer: Any) -> bool:
    """Return whether a trainer certainly starts no processes: one device by number, or a list of one device."""
    devices = trainer.devices
    listed = list(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else []
    return trainer.num_nodes == 1 and (devices in (1, "1") or len(listed) == 1)
