"""A finished run tested once more: on its own test images or on those of another data set."""

import logging
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from agebench import build, metrics, run
from agebench.errors import UserError
from agebench.fit import quieten
from agebench.module import Normalise
from agebench.outputs import tested, who_is_in, write_predictions, write_split

log = logging.getLogger(__name__)


def retest(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Test a run's weights and write results.json, predictions.csv and split.csv into a folder.

    Args:
        cfg: The composed config of the verb: `run`, `checkpoint`, `devices`, and `data` if it is to be another.
        folder: Where to write; made if need be.

    Returns:
        What results.json holds.

    Raises:
        UserError: If the folder is not a finished run, or the labels are not those it was trained for.
    """
    run_dir = Path(cfg.run)
    trained = run.read_results(run_dir)
    if trained.get("status") != "completed":
        log.warning(
            "%s is %s, not completed: these are the figures of an unfinished run", run_dir, trained.get("status")
        )
    other = cfg.get("data") is not None
    path = _checkpoint(cfg.checkpoint, run_dir, trained)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    if "agebench" not in stored:
        raise UserError(f"{path} is no checkpoint of agebench's: give one of a run's checkpoints/")
    stamp = stored["agebench"]
    config = _trained_config(stamp)
    _take_over(config, cfg)
    quieten()
    L.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(config.matmul_precision)
    data = build.build_data(config)
    data.setup()
    if list(data.target.label_names) != stamp["label_names"]:
        raise UserError(
            f"{run_dir} was trained for the labels {_few(stamp['label_names'])}, and data={data.name} has "
            f"{_few(data.target.label_names)}: choose data and data.target with the same labels"
        )
    with open_dict(config):
        config.model.pretrained, config.model.checkpoint_path = False, None  # the run's own weights come in a moment
    # Statistics of the images it was trained on travel with the weights; these only have their shape.
    module = build.build_module(config, data, normalise=Normalise([0.0] * data.channels, [1.0] * data.channels))
    module.load_state_dict(stored["state_dict"])
    trainer = L.Trainer(
        accelerator=cfg.accelerator,
        devices=cfg.devices,
        strategy="ddp" if cfg.devices not in (1, "1") else "auto",
        precision=cfg.precision or config.trainer.precision,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
        limit_test_batches=None if other else config.trainer.limit_test_batches,
    )
    trainer.test(module, datamodule=data, verbose=False)
    predictions = module.predictions
    if predictions is None:
        raise RuntimeError("the test ended without predictions")
    results = {
        "status": "completed",
        "run": str(run_dir),
        "checkpoint": path.name,
        "protocol": data.protocol,
        "trained_protocol": stamp["protocol"],
        **tested(data, predictions),
        "metrics": predictions.metrics,
        "intervals": metrics.bootstrap(predictions.numbers, groups=who_is_in(data, predictions)),
        "versions": run.versions(),
    }
    if run.is_first_process():
        folder.mkdir(parents=True, exist_ok=True)
        write_split(folder, data)
        write_predictions(folder, data, predictions)
        run.write_json(folder / "results.json", results)
        before = {} if other else trained.get("metrics", {})
        for name, value in predictions.metrics.items():
            log.info("%-16s %.6f%s", name, value, f"  (train reported {before[name]:.6f})" if name in before else "")
        off = [
            name
            for name, value in before.items()
            if value is not None and abs(predictions.metrics[name] - value) > 1e-4
        ]
        if off and cfg.checkpoint == "tested":
            log.warning(
                "%s differ from what train reported: the data or the versions have changed since", ", ".join(off)
            )
        log.info("written to %s", folder)
    return results


def _trained_config(stamp: dict[str, Any]) -> DictConfig:
    """Return the config that a checkpoint was trained by; relative paths in it are taken from where it was started."""
    config: DictConfig = OmegaConf.create(stamp["config"])
    started = Path(stamp["started_in"])
    sys.path.append(stamp["started_in"])  # where a network of the user's own was found
    for key in ("data.root", "data.source.root", "data.split.file", "paths.data", "paths.cache"):
        value = OmegaConf.select(config, key)
        if value is not None and (started / value).exists():
            OmegaConf.update(config, key, str(started / value))
    return config


def _take_over(config: DictConfig, cfg: DictConfig) -> None:
    """Put another data set in the place of the trained one, at the size the model was trained for."""
    if cfg.get("data") is None:
        return
    size, channels, target, bins = (config.data[key] for key in ("image_size", "channels", "target", "bins"))
    with open_dict(config):
        config.data = OmegaConf.create(OmegaConf.to_container(cfg.data, resolve=False))
        config.paths = OmegaConf.create(OmegaConf.to_container(cfg.paths, resolve=True))
        config.data.image_size, config.data.channels = size, channels
        config.data.target, config.data.bins = target, bins


def _checkpoint(choice: str, run_dir: Path, trained: dict[str, Any]) -> Path:
    name = trained.get("best", {}).get("tested", "best") if choice == "tested" else choice
    path = run_dir / "checkpoints" / f"{name}.ckpt" if name in ("best", "last") else Path(name)
    if not path.is_file():
        raise UserError(
            f"there are no weights at {path}: the run is {trained.get('status')}; checkpoint=best, last or a file"
        )
    return path


def _few(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")
