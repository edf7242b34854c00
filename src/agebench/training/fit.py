"""One training run, from a composed config to a complete run directory: prepare, build, train, test, write."""

import logging
import shlex
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from agebench.build.data import build_images
from agebench.build.keys import NETWORK, TRAINING, check_nodes
from agebench.data.split import PARTS
from agebench.errors import FailedError, UserError
from agebench.interrupts import exit_code
from agebench.lightning_internals import compile_errors
from agebench.metrics.predictions import Predictions
from agebench.metrics.table import best_name
from agebench.models.summary import count_parameters, summarise_model
from agebench.models.weights import hash_tensors
from agebench.process import set_up_process
from agebench.report_arrays import FeatureRecorder, choose_rows, write_arrays
from agebench.runs.by_group import group_results
from agebench.runs.description import data_sha, describe_test
from agebench.runs.folder import check_folder, is_first_process, write_config
from agebench.runs.identity import config_hash, git_commit, versions
from agebench.runs.own_code import own_code
from agebench.runs.read import CODE
from agebench.runs.tables import write_breakdown, write_layers, write_predictions, write_split
from agebench.runs.writer import RunWriter
from agebench.step_check import NonFiniteError
from agebench.training import resume
from agebench.training.batch_size import choose_batch_size
from agebench.training.console import (
    device_name,
    log_early_stop,
    log_results,
    log_start,
    warn_if_busy,
    write_parameters,
)
from agebench.training.failures import explain_non_finite, known_error
from agebench.training.hparams import hparams
from agebench.training.memory import keep_freed_memory
from agebench.training.parts import Training, build_training
from agebench.training.ranks import watch_ranks
from agebench.training.tensorboard import RunTensorBoard
from agebench.trust import find_foreign

log = logging.getLogger(__name__)

LOCK_WAIT_S = 8  # workers of a killed run keep its lock for up to 5 s


def fit(cfg: DictConfig, run_dir: Path, *, progress: Connection | None = None, discard: bool = False) -> float:
    """Train, test the selected checkpoint, and write the run directory.

    An unfinished run in the directory is resumed. A completed run is not changed.

    Args:
        cfg: The composed config.
        run_dir: The run directory; created if it does not exist.
        progress: Connection to the sweep that this training is a point of, or None.
        discard: Whether to remove the files of a new run that ends with a user error before its first epoch does.

    Returns:
        The best value of the monitored metric, which sweepers optimize.

    Raises:
        UserError: If the config or the data is wrong, or the directory contains other files or another run.
        FailedError: If training diverged.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    check_nodes(config, (*NETWORK, *TRAINING))
    first = is_first_process()
    if first:
        check_folder(run_dir, "run")
    run_dir.mkdir(parents=True, exist_ok=True)
    discard = discard and first and not (run_dir / "results.json").exists()
    with _locked(run_dir) if first else nullcontext():
        previous, measured = resume.read_previous(run_dir), {}
        if cfg.data.batch_size == "auto":
            cfg, measured["batch_size"] = choose_batch_size(cfg, previous)
            config = OmegaConf.to_container(cfg, resolve=True)
        wanted = config_hash(config)
        done = resume.finished(
            run_dir,
            previous,
            config=wanted,
            sha=lambda: data_sha(build_images(cfg).plan),
            quiet=progress is not None,
        )
        if done is not None:
            resume.warn_of_changed_code(run_dir, previous, own_code(config), progress=progress)
            if cfg.get("age_limit") not in (None, (previous.get("decision") or {}).get("age_limit")):
                again = f"python -m agebench.evaluate {shlex.quote(f'run={run_dir}')} age_limit={cfg.age_limit}"
                again += " trust=true" if find_foreign(config) else ""
                log.warning("the finished run has no decisions at age_limit=%s: %s", cfg.age_limit, again)
            return done
        if cfg.resume not in ("auto", False) and previous.get("config") not in (None, wanted):
            raise UserError(
                f"{run_dir} is a run of another config ({previous['config']}; this one is {wanted}): "
                "resume=FOLDER takes no override that changes the result"
            )
        writer = RunWriter(run_dir, enabled=first)
        if previous.get("status") == "running" and first:  # this process holds the lock
            log.warning("an earlier process of %s ended without a final status: it was killed", run_dir)
        facts = {
            "host": socket.gethostname(),
            "seed": cfg.seed,
            "config": wanted,
            "resumed": previous.get("resumed", 0),
            **{key: previous[key] for key in CODE if key in previous},  # of the last checkpoint
            **measured,
        }
        try:
            with writer.running(facts):
                if first:
                    write_config(run_dir, cfg)
                return _run(cfg, config, run_dir, previous, writer=writer, progress=progress)
        except (KeyboardInterrupt, SystemExit) as end:
            if first:
                _log_interruption(run_dir, resume.kept_epochs(run_dir, wanted), resume.resume_command(run_dir, config))
            # Also after Lightning's SIGTERMException, which has the exit code 0. The cause says that it is reported.
            raise SystemExit(exit_code()) from end
        except UserError:
            if discard and not (run_dir / "metrics.csv").exists():
                resume.discard(run_dir)
            raise


def _log_interruption(run_dir: Path, epochs: int, again: str) -> None:
    if epochs:
        kept = "1 finished epoch is" if epochs == 1 else f"{epochs} finished epochs are"
        log.warning("interrupted: %s kept in %s; to resume: %s", kept, run_dir, again)
    else:
        log.warning("interrupted: %s has no checkpoint of a finished epoch yet; to start again: %s", run_dir, again)


def _run(
    cfg: DictConfig,
    config: Mapping[str, Any],
    run_dir: Path,
    previous: Mapping[str, Any],
    *,
    writer: RunWriter,
    progress: Connection | None,
) -> float:
    set_up_process(seed=cfg.seed, matmul_precision=cfg.matmul_precision)
    keep_freed_memory()
    training = build_training(cfg, config, run_dir, progress=progress)
    start = prepare(training, previous, writer, progress=progress)
    if writer.enabled and progress is None:  # every point of a sweep would repeat it
        warn_if_busy(training.trainer)
    with watch_ranks(run_dir, first=writer.enabled, machines=training.trainer.num_nodes):
        best = train(training, start, writer)
        with ExitStack() as stack:
            recorder = None
            if cfg.report and writer.enabled:
                chosen = choose_rows(len(training.data.part("test")))
                recorder = stack.enter_context(FeatureRecorder(training.module, chosen))
            predictions = test(training, best, writer)
    if writer.enabled:
        write(training, predictions, best, writer)
        if recorder is not None:
            write_report_arrays(training, predictions, recorder)
        finish(training, writer)
    return float(best["value"])


def prepare(
    training: Training, previous: Mapping[str, Any], writer: RunWriter, *, progress: Connection | None = None
) -> resume.Start:
    """Return where training starts. Prepare the folder, and write the results that are known before the first step."""
    cfg, trainer, module, facts = training.cfg, training.trainer, training.module, training.description.facts
    # Saved in the checkpoints, so that only the same run resumes from them.
    module.stamp |= {"config_hash": writer.results["config"], "data_sha": facts["data_sha"]}
    start = resume.find_start(
        training.run_dir, previous, config=training.config, sha=facts["data_sha"], resume=cfg.resume
    )
    taught = {} if module.teacher is None else {"teacher": module.teacher.facts}
    if start.checkpoint and previous.get("teacher", taught.get("teacher")) != taught.get("teacher"):
        raise UserError(
            f"teacher.run={cfg.teacher.run} has changed since {training.run_dir} was started: restore it from a copy, "
            "or start over with resume=false"
        )
    code = own_code(training.config)
    if start.checkpoint:
        resume.warn_of_changed_code(training.run_dir, previous, code, progress=progress)
    for key in CODE:
        writer.results.pop(key, None)
    total, trainable = count_parameters(module.model)
    if writer.enabled:
        resume.prepare(training.run_dir, start)
    writer.update(
        {
            "resumed": writer.results["resumed"] + 1 if start.checkpoint else 0,
            "protocol": training.data.plan.protocol,
            **facts,
            **taught,
            "params": {"total": total, "trainable": trainable},
            "versions": versions(),
            "git": git_commit(),
            **resume.code_facts(previous, code, resumed=start.checkpoint is not None),
            "device": device_name(trainer),
            "threads": torch.get_num_threads(),
        }
    )
    if writer.enabled:
        write_split(training.run_dir, training.data.plan)
        summary = summarise_model(module.model, training.data.image_shape)
        write_layers(training.run_dir, summary.layers)
        log_start(cfg, training.data, summary, trainer, audited=training.description.audited)
        write_parameters(training.run_dir / "params.csv", cfg.optim, module)
        if start.checkpoint:
            log.info("resumed   after epoch %d, from %s", start.epochs, start.checkpoint)
    for board in training.boards:
        if start.checkpoint and isinstance(board, RunTensorBoard):
            board.resume_at(start.step)
        board.declare_hparams(*hparams(cfg, training.config, training.data.plan.protocol))
    return start


def train(training: Training, start: resume.Start, writer: RunWriter) -> dict[str, Any]:
    """Train, write `best` to results.json and return it: the best epoch, its value, and the checkpoint to test."""
    trainer, speed = training.trainer, training.speed
    speed.begin()
    if trainer.num_nodes > 1 and writer.enabled:
        log.info(
            "waiting for %d more machines: run the same command there with NODE_RANK=1, 2, ..., and with MASTER_ADDR "
            "and MASTER_PORT of this one",
            trainer.num_nodes - 1,
        )
    try:
        trainer.fit(training.module, datamodule=training.data, ckpt_path=start.checkpoint, weights_only=True)
    except compile_errors() as error:
        why = str(error).strip().splitlines()[0]
        setting = f"compile={str(training.cfg.compile).lower()}"
        raise UserError(f"{setting}: torch.compile cannot compile this network ({why}): remove it") from error
    except NonFiniteError as error:
        raise FailedError(explain_non_finite(error, training, writer)) from error
    except Exception as error:
        if (known := known_error(error, training, start)) is not None:
            raise known from error
        raise
    if writer.enabled:
        log_early_stop(trainer)
    checkpoint = trainer.checkpoint_callback
    has_best = training.cfg.test_checkpoint == "best" and getattr(checkpoint, "best_model_path", "")
    skipped = training.module.check.skipped
    best = {
        **_best_epoch(training.table.rows, training.monitor, training.mode, checkpoint),
        "monitor": training.monitor,
        "mode": training.mode,
        "tested": "best" if has_best else "last",
    }
    writer.update(
        {
            "best": best,
            "epochs": len(training.table.rows),
            "steps": trainer.global_step,
            **({"skipped_steps": skipped} if skipped else {}),
            "residency": training.data.where,
            "timing": {
                "fit_s": round(speed.fit_s, 3),
                "train_images_per_s": round(speed.images_per_s, 1),
                "data_wait_share": round(speed.data_wait_share, 5),
            },
        }
    )
    return best


def test(training: Training, best: Mapping[str, Any], writer: RunWriter) -> Predictions:
    """Return the predictions of the checkpoint that `best` names, or of the weights in memory if there is no file.

    The trainer does not load the file, because callbacks (weight averaging) could then restore other weights.

    Raises:
        FailedError: If a callback changed the weights for the test. The results would not be those of the file.
    """
    module, trainer = training.module, training.trainer
    last = training.run_dir / "checkpoints" / "last.ckpt"
    checkpoint = Path(trainer.checkpoint_callback.best_model_path) if best["tested"] == "best" else last  # type: ignore[union-attr]  # `tested` says that there is one
    if checkpoint.is_file():
        module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    weights_sha = hash_tensors(module.state_dict())
    trainer.test(module, datamodule=training.data, verbose=False)
    predictions = module.predictions
    if predictions is None:
        raise RuntimeError("the test ended without predictions")
    if module.tested_sha != weights_sha:
        raise FailedError(
            f"a callback changed the weights for the test, so the results would not be those of {checkpoint}: "
            "remove the callback that was added"
        )
    writer.results["weights_sha"] = weights_sha
    return predictions


def write(training: Training, predictions: Predictions, best: Mapping[str, Any], writer: RunWriter) -> None:
    """Write the test results, the tables, and the final TensorBoard values."""
    run_dir, plan, trainer = training.run_dir, training.data.plan, training.trainer
    description = training.description.limited_to(predictions)
    tested, bounds = describe_test(plan, predictions)
    writer.update({**description.facts, **tested})
    write_predictions(run_dir, plan, predictions)
    write_breakdown(run_dir, plan, predictions, bounds=bounds)
    if (grouped := group_results(plan, predictions)) is not None:
        writer.update({"groups": grouped.facts})
        grouped.write(run_dir)
    for logger in trainer.loggers:
        logger.log_metrics({best_name(training.monitor): best["value"]}, step=trainer.global_step)
    if grouped is not None:
        grouped.log()


def write_report_arrays(training: Training, predictions: Predictions, recorder: FeatureRecorder) -> None:
    """Write the arrays from which another process draws the report. They must not fail the run."""
    try:
        write_arrays(
            training.run_dir,
            training.module,
            training.data,
            predictions=predictions,
            recorded=recorder.features(predictions),
            parts=PARTS if training.cfg.report == "full" else (),
        )
    except Exception:
        log.exception("the images of the report could not be written; the results are complete without them")


def finish(training: Training, writer: RunWriter) -> None:
    """End the run in each logger, remove what only an unfinished run needs, and log the results."""
    for board in training.boards:
        board.finish_hparams()
    resume.tidy(training.run_dir)
    losses = [row["train/loss"] for row in training.table.rows if "train/loss" in row]
    log_results(writer.results, training.run_dir, losses=losses)


def _best_epoch(rows: list[dict[str, float]], monitor: str, mode: str, checkpoint: Any) -> dict[str, Any]:
    """Return the first epoch (from 0) with the best monitored metric, and its value.

    Both are read from the best checkpoint if there is one, because validation may run several times per epoch.
    Otherwise they are read from the table of epochs.
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
def _locked(run_dir: Path) -> Iterator[None]:
    """Context manager: lock a run directory, so that only one process writes to it."""
    # The lock file is kept: a process that has it open would otherwise lock a deleted file.
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=LOCK_WAIT_S)
    except Timeout:
        raise UserError(f"another process is writing {run_dir}: wait for it, or choose another hydra.run.dir") from None
    try:
        yield
    finally:
        lock.release()
