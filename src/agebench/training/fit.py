"""One training run, from a composed config to a finished run directory."""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from agebench import build
from agebench.data.datamodule import ImageDataModule
from agebench.errors import FailedError, UserError, reason
from agebench.models.summary import count_parameters
from agebench.models.weights import hash_tensors
from agebench.module import ImageModule, Predictions
from agebench.runs import identity as run
from agebench.runs.tables import data_sha, describe_data, describe_test, write_breakdown, write_predictions, write_split
from agebench.training import resume
from agebench.training.callbacks import EpochTable, Progress, Speed, skip_idle_hooks
from agebench.training.checkpoints import WholeFiles
from agebench.training.console import announce, device_name, tell
from agebench.training.fast_loop import TurnModule, takes_turns
from agebench.training.hparams import hparams
from agebench.training.memory import keep_freed_memory
from agebench.training.sweep_progress import SweepProgress
from agebench.training.tensorboard import RunTensorBoard

log = logging.getLogger(__name__)


LOCK_WAIT_S = 8  # the worker processes of a killed run take 5 s to see that it is gone, and hold its lock till then


def fit(cfg: DictConfig, run_dir: Path, *, progress: Connection | None = None) -> float:
    """Train, test on the chosen checkpoint and write the run directory.

    An unfinished run in the directory is resumed; a complete run is left unchanged.

    Args:
        cfg: The composed config.
        run_dir: Run directory, created if necessary.
        progress: To the sweep that this run is a point of, for messages about its progress; None for a single run.

    Returns:
        The monitored metric's best value, for sweepers.

    Raises:
        UserError: If the config or the data is wrong, or the directory holds another run.
    """
    first = run.is_first_process()
    if first:
        run.check_folder(run_dir, "run")
    run_dir.mkdir(parents=True, exist_ok=True)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    wanted = run.config_hash(config)
    with _claimed(run_dir) if first else nullcontext():
        before = resume.read_before(run_dir)
        quiet = progress is not None  # the sweep reports a complete point itself
        done = resume.finished(run_dir, before, config=wanted, sha=lambda: data_sha(_data(cfg)), quiet=quiet)
        if done is not None:
            return done
        if cfg.resume not in ("auto", False) and before.get("config") not in (None, wanted):
            raise UserError(
                f"{run_dir} is a run of another config ({before['config']}, and this is {wanted}): "
                "resume=FOLDER takes no override that changes the result"
            )
        results: dict[str, Any] = {
            "status": "running",
            "seed": cfg.seed,
            "config": wanted,
            "resumed": before.get("resumed", 0),
        }
        if first:
            run.write_json(run_dir / "results.json", results)
            run.write_config(run_dir, cfg)
        try:
            return _fit(cfg, run_dir, before, results, progress=progress)
        except (KeyboardInterrupt, SystemExit):
            results["status"] = "interrupted"
            if first:
                again = f"python -m agebench.train {shlex.quote(f'resume={run_dir}')}"
                log.warning("interrupted: what was finished is kept in %s; to go on: %s", run_dir, again)
            sys.exit(1)  # also after SIGTERM, at which Lightning would end with 0
        except BaseException as error:
            results["status"], results["error"] = "failed", reason(error)
            raise
        finally:
            if first:
                run.write_json(run_dir / "results.json", results)


def _data(cfg: DictConfig) -> ImageDataModule:
    data = build.build_data(cfg)
    data.setup()
    return data


def quieten() -> None:
    """Leave to the reader what Lightning says that helps, and drop what it says at every run."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*treespec.*",
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
        "Checkpoint directory .* exists and is not empty.*",
        ".*`dataloader_iter`.*",
    ):
        warnings.filterwarnings("ignore", message)


def _fit(
    cfg: DictConfig,
    run_dir: Path,
    before: dict[str, Any],
    results: dict[str, Any],
    *,
    progress: Connection | None,
) -> float:
    first = run.is_first_process()
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    quieten()
    keep_freed_memory()
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    if not torch.cuda.device_count():
        # Lightning sets it; torch then looks for NVML's library at every optimizer step, 0.15 ms each.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    data = _data(cfg)
    monitor, mode = build.build_monitor(cfg, unit=data.target.unit)
    callbacks = build.build_callbacks(cfg, run_dir, monitor=monitor, mode=mode)
    module = build.build_module(cfg, data, kind=TurnModule if takes_turns(cfg, callbacks) else ImageModule)
    speed, table = Speed(), EpochTable(run_dir / "metrics.csv")
    callbacks = [*callbacks, speed, table, *([SweepProgress(progress, speed)] if progress is not None else [])]
    trainer = _trainer(cfg, run_dir, callbacks)
    skip_idle_hooks(module, trainer.callbacks)  # type: ignore[attr-defined]  # set by its connector

    total, trainable = count_parameters(module.model)
    results |= {
        "protocol": data.protocol,
        **describe_data(data),
        "params": {"total": total, "trainable": trainable},
        "versions": run.versions(),
        "git": run.git_commit(),
        "device": device_name(trainer),
        "threads": torch.get_num_threads(),
    }
    # Travels with the checkpoints: only this run goes on from them.
    module.stamp |= {"config_hash": results["config"], "data_sha": results["data_sha"]}
    start = resume.find_start(run_dir, before, config=config, sha=results["data_sha"], resume=cfg.resume)
    results["resumed"] = results["resumed"] + 1 if start.checkpoint else 0
    if first:
        resume.prepare(run_dir, start)
        run.write_json(run_dir / "results.json", results)
        write_split(run_dir, data)
        announce(cfg, data, module, trainer)
        if start.checkpoint:
            log.info("resumed   after epoch %d, whose end is in %s", start.epochs, start.checkpoint)
    boards = [logger for logger in trainer.loggers if isinstance(logger, RunTensorBoard)]
    for board in boards:
        if start.checkpoint:
            board.go_on(start.step)
        board.declare_hparams(hparams(cfg, config, data.protocol))

    speed.begin()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
    except torch._dynamo.exc.TorchDynamoException as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"compile=true: torch.compile cannot make this network ({why}): leave compile out") from error
    fit_s = speed.fit_s
    checkpoint = trainer.checkpoint_callback
    best_path = getattr(checkpoint, "best_model_path", "") if cfg.test_checkpoint == "best" else ""
    history = list(table.rows)
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
    last = run_dir / "checkpoints" / "last.ckpt"
    predictions, weights_sha = _test(trainer, module, data, best_path or (last if last.is_file() else None))
    results["weights_sha"] = weights_sha
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
        from agebench.training.run_report import write_run_report

        writer = boards[0].experiment if boards else None
        try:
            write_run_report(run_dir, module, data, predictions=predictions, history=history, writer=writer)
        except Exception:  # a picture that cannot be drawn must not cost the training
            log.exception("the report could not be finished; the results are complete without it")
    for board in boards:
        board.finish_hparams()
    results["status"] = "completed"
    resume.tidy(run_dir)
    tell(results, run_dir)
    return float(best["value"])


def _test(
    trainer: L.Trainer, module: ImageModule, data: ImageDataModule, checkpoint: str | Path | None
) -> tuple[Predictions, str]:
    """Test the weights in a checkpoint file, or those in memory if there is none; return their hash too.

    The file is read here and not by the trainer, which would let callbacks (weight averaging) restore other weights.

    Raises:
        FailedError: If a callback changed the weights for the test: the figures would not be those of the file.
    """
    if checkpoint is not None:
        module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    weights_sha = hash_tensors(module.state_dict())
    trainer.test(module, datamodule=data, verbose=False)
    if module.predictions is None:
        raise RuntimeError("the test ended without predictions")
    if module.tested_sha != weights_sha:
        raise FailedError(
            "a callback changed the weights for the test, so that the figures would not be those of "
            f"{checkpoint or 'the last epoch'}: leave out the callback that was added"
        )
    return module.predictions, weights_sha


def _trainer(cfg: DictConfig, run_dir: Path, callbacks: list[Any]) -> L.Trainer:
    loggers = build.build_loggers(cfg, run_dir)
    bar, speed = cfg.callbacks.get("progress"), next(each for each in callbacks if isinstance(each, Speed))
    if bar:
        callbacks = [*callbacks, Progress(speed, terminal=sys.stderr.isatty(), refresh_rate=bar.refresh_rate)]
    if not loggers:
        callbacks = [c for c in callbacks if type(c).__name__ != "LearningRateMonitor"]
    try:
        plugins = {} if cfg.trainer.get("plugins") else {"plugins": [WholeFiles()]}
        trainer: L.Trainer = instantiate(
            cfg.trainer,
            **plugins,
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
    # The file stays: another process may have it open already, and would lock a file that is no longer there.
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=LOCK_WAIT_S)
    except Timeout:
        raise UserError(f"another process is writing {run_dir}: wait for it, or choose another hydra.run.dir") from None
    try:
        yield
    finally:
        lock.release()
