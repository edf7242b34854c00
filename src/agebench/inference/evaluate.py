"""A finished run tested once more: on its own test images or on those of another data set."""

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from agebench import build
from agebench.data import split as splits
from agebench.data.datamodule import ImageDataModule
from agebench.errors import UserError
from agebench.inference.load import make_trainer, read_checkpoint
from agebench.leakage.seen_in_training import check_people, is_own_test, own_leak, read_split, tell_leak, tells_people
from agebench.metrics.table import headline
from agebench.runs import identity as run
from agebench.runs.tables import describe_data, describe_test, write_breakdown, write_predictions, write_split
from agebench.training.fit import quieten

log = logging.getLogger(__name__)

# What a model's own data and another test set must agree in.
TRAINED_FOR = ("image_size", "channels", "crop_mode", "crop_pct", "interpolation", "target", "bins")


def retest(cfg: DictConfig, folder: Path, *, typed: Collection[str] = ()) -> dict[str, Any]:
    """Test a run's weights and write results.json, predictions.csv and split.csv into a folder.

    Args:
        cfg: The composed config of the verb: `run`, `checkpoint`, `devices`, `allow_leak`, and `data` if it is to be
            another.
        folder: Where to write; made if need be.
        typed: Keys that the user has set: what else is known of the run's own data set is taken from the run.

    Returns:
        What results.json holds.

    Raises:
        UserError: If the folder is not a finished run, the labels are not those it was trained for, or another test set
            shows whom it was trained on and `allow_leak` is false.
    """
    run_dir = Path(cfg.run)
    if run.is_first_process():
        run.check_folder(folder, "evaluation")
    trained = run.read_results(run_dir)
    other = cfg.get("data") is not None
    path, stored, config = read_checkpoint(run_dir, cfg.checkpoint, trained)
    stamp = stored["agebench"]
    for key in TRAINED_FOR:
        if f"data.{key}" in typed and other and cfg.data.get(key) != config.data.get(key):
            was = config.data.get(key)
            raise UserError(f"the run was trained with data.{key}={was} and is tested so: leave data.{key} out")
    _keep_source(config, cfg, typed)
    same_data = _is_same_data(config, cfg)
    _take_over(config, cfg)
    quieten()
    L.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(config.matmul_precision)
    data = build.build_data(config)
    if not other:
        _keep_split(data, run_dir, stamp["protocol"])
    data.plan()
    if list(data.target.label_names) != stamp["label_names"]:
        raise UserError(
            f"{run_dir} was trained for the labels {_few(stamp['label_names'])}, and data={data.name} has "
            f"{_few(data.target.label_names)}: choose data and data.target with the same labels"
        )
    found = _leak_of_other(run_dir, data, same_data=same_data, allow=cfg.allow_leak) if other else {}
    data.setup()
    data.residency = "auto"  # the run's GPU may not be here
    module = build.build_trained(config, stored)
    trainer = make_trainer(
        cfg,
        config,
        devices=cfg.devices,
        strategy="ddp" if cfg.devices not in (1, "1") else "auto",
        use_distributed_sampler=False,
        default_root_dir=str(folder),
        limit_test_batches=None if other else config.trainer.limit_test_batches,
    )
    trainer.test(module, datamodule=data, verbose=False)
    predictions = module.predictions
    if predictions is None:
        raise RuntimeError("the test ended without predictions")
    tested, bounds = describe_test(data, predictions)
    results = {
        "status": "completed",
        "run": str(run_dir),
        "checkpoint": path.name,
        "protocol": data.protocol,
        "trained_protocol": stamp["protocol"],
        **describe_data(data, predictions),
        **found,
        **tested,
        "versions": run.versions(),
    }
    if run.is_first_process():
        folder.mkdir(parents=True, exist_ok=True)
        run.write_config(folder, cfg)
        write_split(folder, data)
        write_predictions(folder, data, predictions)
        write_breakdown(folder, data, predictions, bounds=bounds)
        run.write_json(folder / "results.json", results)
        before = {} if other else trained.get("metrics", {})
        for name in (f"test/{short}" for short in headline(ordered=predictions.ordered, unit=predictions.unit)):
            value, reported = predictions.metrics[name], before.get(name)
            log.info("%-16s %.6f%s", name, value, f"  (train reported {reported:.6f})" if reported is not None else "")
        off = [
            name
            for name, value in before.items()
            if value is not None and abs(predictions.metrics[name] - value) > 1e-4
        ]
        if off and cfg.checkpoint == "tested":
            log.warning(
                "%s differ from what train reported: the data or the versions have changed since", ", ".join(off)
            )
        if results["leak"]:
            log.info("%s", tell_leak(results["leak"]))
        log.info("written to %s", folder)
    return results


def _keep_split(data: ImageDataModule, run_dir: Path, protocol: str) -> None:
    """Have the split read back from the run: drawn anew, it would be another one if an image has come or gone."""
    file = run_dir / "split.csv"
    if file.is_file():
        name = protocol.split("/")[1]
        data.make_split = lambda *given: replace(splits.column(*given, file=str(file)), name=name)
        data.per_class = data.limit = None  # they are in it already


def _keep_source(trained: DictConfig, cfg: DictConfig, typed: Collection[str]) -> None:
    """Where the data set to test is the run's own, have it lie where it lay, unless the user says where it is now."""
    if cfg.get("data") is None or not _is_named_alike(trained, cfg):
        return
    moved = {"data.root", "data.source.root", "paths.data"} & set(typed)
    if moved and _is_its_path(cfg):
        return
    root = trained.data.root
    with open_dict(cfg):
        if not moved and (root is None or _exists(root)):
            cfg.data.root = root
        elif not moved:
            log.warning("the run's data.root=%s is not there any more: looking in %s", root, cfg.data.root)
        for key in ("columns", "source"):
            for name, value in (trained.data.get(key) or {}).items():
                if name not in ("root", "cache") and f"data.{key}.{name}" not in typed:
                    cfg.data[key][name] = value
        if "paths.cache" not in typed and _exists(trained.paths.cache):
            cfg.paths.cache = trained.paths.cache  # where its pixels are packed


def _exists(path: Any) -> bool:
    return Path(str(path)).expanduser().exists()


def _is_named_alike(trained: DictConfig, cfg: DictConfig) -> bool:
    return bool(trained.data.name == cfg.data.name and trained.data.source._target_ == cfg.data.source._target_)


def _is_same_data(trained: DictConfig, cfg: DictConfig) -> bool:
    """Return whether the data set to test is the one that was trained on, so that its names and numbers mean the same.

    A named one is what its name says wherever it lies; a folder or a table of one's own IS where it lies.
    """
    if cfg.get("data") is None:
        return True
    if trained.data.name != cfg.data.name:
        return False
    roots = {Path(str(data.root)).expanduser().resolve() for data in (trained.data, cfg.data)}
    return len(roots) == 1 or not (_is_its_path(trained) or _is_its_path(cfg))


def _is_its_path(config: DictConfig) -> bool:
    """Return whether a data set is one's own, so that another path is another data set."""
    return str(config.data.source._target_).rpartition(".")[2] in ("Folder", "Table")


def _leak_of_other(run_dir: Path, data: ImageDataModule, *, same_data: bool, allow: bool) -> dict[str, Any]:
    """Return what results.json says of the people whom another test set shares with the run's train part.

    If the test images are the run's own after all, its own leak is told again.
    """
    trained = read_split(run_dir)
    if trained is None:
        told = f"{run_dir} has no readable split.csv, which tells whom the model was trained on"
        if not allow:
            raise UserError(f"{told}: bring it back, or set allow_leak=true to have the figure all the same")
        log.warning("%s: the figure may be one of people that it has seen", told)
        return {"leak": None, "leak_checked": False}
    if is_own_test(trained, data, same_data=same_data):
        return {"leak": own_leak(trained, data), "leak_checked": True}
    checked = same_data or tells_people(trained, data)
    return {"leak": check_people(trained, data, same_data=same_data, allow=allow), "leak_checked": checked}


def _take_over(config: DictConfig, cfg: DictConfig) -> None:
    """Put another data set in the place of the trained one, at the size the model was trained for."""
    if cfg.get("data") is None:
        return
    kept = {key: config.data[key] for key in TRAINED_FOR if key in config.data}
    with open_dict(config):
        config.data = OmegaConf.create(OmegaConf.to_container(cfg.data, resolve=False))
        config.paths = OmegaConf.create(OmegaConf.to_container(cfg.paths, resolve=True))
        config.data.update(kept)


def _few(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")
