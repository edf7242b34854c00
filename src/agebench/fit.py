"""One training run, from a composed config to a finished run directory."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from agebench import build, run
from agebench.callbacks import EpochTable, Progress, Speed
from agebench.console import announce, device_name, tell
from agebench.errors import UserError
from agebench.hparams import hparams, test_metrics
from agebench.outputs import data_sha, describe_data, describe_test, write_breakdown, write_predictions, write_split
from agebench.summary import count_parameters
from agebench.tensorboard import RunTensorBoard

log = logging.getLogger(__name__)


def fit(cfg: DictConfig, run_dir: Path) -> float:
    """Train, test on the chosen checkpoint and write the run directory.

    Args:
        cfg: The composed config.
        run_dir: Where everything goes; made if need be.

    Returns:
        The monitored metric's best value, for sweepers.

    Raises:
        UserError: If the config or the data is wrong.
    """
    first = run.is_first_process()
    run_dir.mkdir(parents=True, exist_ok=True)
    with _claimed(run_dir) if first else nullcontext():
        if first and (finished := _finished(run_dir, cfg)) is not None:
            return finished
        if first:
            run.write_config(run_dir, cfg)
        results: dict[str, Any] = {"status": "running", "seed": cfg.seed}
        try:
            return _fit(cfg, run_dir, results, first=first)
        except (KeyboardInterrupt, SystemExit):
            results["status"] = "interrupted"
            log.warning("interrupted: what was finished is kept in %s", run_dir)
            sys.exit(1)  # also after SIGTERM, at which Lightning would end with 0
        except BaseException as error:
            results["status"], results["error"] = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            if first:
                run.write_json(run_dir / "results.json", results)


def _finished(run_dir: Path, cfg: DictConfig) -> float | None:
    """Return the best value of a run that is complete in this folder already, or clear what an unfinished one left.

    Raises:
        UserError: If the folder holds a complete run of another config, or of other images, which must not be lost.
    """
    if not (run_dir / "results.json").exists():
        return None
    before = run.read_results(run_dir)
    if before.get("status") == "completed":
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        if before.get("config") != run.config_hash(config):
            raise UserError(f"{run_dir} holds a finished run of another config: choose another hydra.run.dir or sweep")
        data = build.build_data(cfg)
        data.setup()
        if before.get("data_sha") != data_sha(data):
            raise UserError(
                f"{run_dir} holds a finished run of this config on other images or labels than are there now: "
                "choose another hydra.run.dir or sweep"
            )
        log.info("%s is complete with this very config: nothing to do", run_dir)
        return float(before["best"]["value"] if before["best"]["value"] is not None else "nan")
    for old in (*run_dir.glob("events.out.tfevents*"), *run_dir.glob("checkpoints/*.ckpt")):
        old.unlink()
    return None


def quieten() -> None:
    """Leave to the reader what Lightning says that helps, and drop what it says at every run."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*treespec.*", ".*smaller than the logging interval.*", ".*does not have many workers.*"):
        warnings.filterwarnings("ignore", message)


def _fit(cfg: DictConfig, run_dir: Path, results: dict[str, Any], *, first: bool) -> float:
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    quieten()
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    data = build.build_data(cfg)
    data.setup()
    module = build.build_module(cfg, data)
    monitor, mode = build.build_monitor(cfg, unit=data.target.unit)
    speed, table = Speed(), EpochTable(run_dir / "metrics.csv")
    trainer = _trainer(cfg, run_dir, [speed, table, *build.build_callbacks(cfg, run_dir, monitor=monitor, mode=mode)])

    total, trainable = count_parameters(module.model)
    results |= {
        "protocol": data.protocol,
        **describe_data(data),
        "params": {"total": total, "trainable": trainable},
        "config": run.config_hash(config),
        "versions": run.versions(),
        "git": run.git_commit(),
        "device": device_name(trainer),
        "threads": torch.get_num_threads(),
    }
    if first:
        run.write_json(run_dir / "results.json", results)
        write_split(run_dir, data)
        announce(cfg, data, module, trainer)
    boards = [logger for logger in trainer.loggers if isinstance(logger, RunTensorBoard)]
    for board in boards:
        names = [f"test/{name}" for name in test_metrics(module)]
        board.declare_hparams(hparams(cfg, config, data.protocol), [f"best/{monitor}", *names])

    start = time.perf_counter()
    trainer.fit(module, datamodule=data)
    fit_s = time.perf_counter() - start
    checkpoint = trainer.checkpoint_callback
    best_path = getattr(checkpoint, "best_model_path", "") if cfg.test_checkpoint == "best" else ""
    last_path = getattr(checkpoint, "last_model_path", "")
    history = list(table.rows)  # before testing, which takes the callbacks back to where they were at the best epoch
    best = _best(history, monitor, mode, checkpoint)
    results |= {
        "best": {**best, "monitor": monitor, "mode": mode, "tested": "best" if best_path else "last"},
        "epochs": len(history),
        "residency": data.where,
        "timing": {
            "fit_s": round(fit_s, 3),
            "train_images_per_s": round(speed.images_per_s, 1),
            "data_wait_share": round(speed.data_wait_share, 5),
        },
    }
    # Without a checkpoint (callbacks.checkpoint=null, debug=fast) the weights in memory are the last ones.
    trainer.test(module, datamodule=data, ckpt_path=best_path or last_path or None, verbose=False)
    predictions = module.predictions
    if predictions is None:
        raise RuntimeError("the test ended without predictions")
    if not first:
        return float(best["value"])

    results |= describe_data(data, predictions)
    tested, bounds = describe_test(data, predictions)
    results |= tested
    write_predictions(run_dir, data, predictions)
    write_breakdown(run_dir, data, predictions, bounds=bounds)
    for logger in trainer.loggers:
        logger.log_metrics({f"best/{monitor}": best["value"]}, step=trainer.global_step)
    if cfg.report:
        from agebench.features import write_run_report

        writer = boards[0].experiment if boards else None
        try:
            write_run_report(run_dir, module, data, predictions=predictions, history=history, writer=writer)
        except Exception:  # a picture that cannot be drawn must not cost the training
            log.exception("the report could not be finished; the results are complete without it")
    for board in boards:
        board.finish_hparams()
    results["status"] = "completed"
    tell(results, run_dir)
    return float(best["value"])


def _trainer(cfg: DictConfig, run_dir: Path, callbacks: list[Any]) -> L.Trainer:
    loggers = build.build_loggers(cfg, run_dir)
    bar = cfg.callbacks.get("progress")
    if bar:
        callbacks = [*callbacks, Progress(callbacks[0], terminal=sys.stderr.isatty(), refresh_rate=bar.refresh_rate)]
    if not loggers:
        callbacks = [c for c in callbacks if type(c).__name__ != "LearningRateMonitor"]
    try:
        trainer: L.Trainer = instantiate(
            cfg.trainer,
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=str(run_dir),
            enable_progress_bar=bool(bar),
            enable_model_summary=False,
            use_distributed_sampler=False,  # our batches are already shared out, each image once
        )
    except Exception as error:
        cause = error.__cause__ or error
        raise UserError(f"trainer: {str(cause).strip().splitlines()[0]}") from error
    return trainer


def _best(rows: list[dict[str, float]], monitor: str, mode: str, checkpoint: Any) -> dict[str, Any]:
    """Return the epoch (from 0) at which the monitored metric was best, the first of equals, and its value.

    The checkpoint knows best, for validation may come several times an epoch; without one the table of epochs does.
    """
    path, score = getattr(checkpoint, "best_model_path", ""), getattr(checkpoint, "best_model_score", None)
    if path and score is not None and checkpoint.monitor == monitor:
        epoch = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"]
        return {"epoch": int(epoch), "value": float(score)}
    known = [row for row in rows if monitor in row and row[monitor] == row[monitor]]
    if not known:
        return {"epoch": None, "value": float("nan")}
    sign = 1 if mode == "min" else -1
    row = min(known, key=lambda r: sign * r[monitor])
    return {"epoch": int(row["epoch"]), "value": row[monitor]}


@contextmanager
def _claimed(run_dir: Path) -> Iterator[None]:
    """Keep two processes from writing one run directory."""
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is writing {run_dir}: wait for it, or choose another hydra.run.dir") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
