"""What a run does when a later Lightning or PyTorch lacks a private attribute that agebench uses."""

import logging
import sys
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer import call
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from agebench import lightning_internals
from agebench.errors import UserError
from agebench.training import parts
from agebench.training.callbacks import skip_idle_hooks
from agebench.training.fast_loop import MultiStepModule
from agebench.training.fit import fit
from agebench.training.tensorboard import RunTensorBoard

EPOCHS = 3
SMALL = ("data=digits", "data.limit=200", "data.batch_size=20", "model.hidden=[8]", f"trainer.max_epochs={EPOCHS}")
QUIET = ("trainer.accelerator=cpu", "callbacks.progress=null", "report=false")


class Removed:
    """An attribute that Lightning itself still finds and agebench does not, as after a renaming in Lightning."""

    def __init__(self, owner: type, name: str) -> None:
        self.name, self.inherited = name, getattr(owner, name, None)

    def __get__(self, instance, owner=None):
        if sys._getframe(1).f_globals["__name__"].startswith("agebench."):
            raise AttributeError(self.name)
        if self.name in vars(instance):
            return vars(instance)[self.name]
        if self.inherited is None:
            raise AttributeError(self.name)
        return self.inherited.__get__(instance, owner)

    def __set__(self, instance, value) -> None:
        vars(instance)[self.name] = value


@pytest.fixture
def remove(monkeypatch):
    def removed(owner: type, name: str) -> None:
        monkeypatch.setattr(owner, name, Removed(owner, name), raising=False)

    return removed


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """Return the list of lines that lightning_internals logs."""

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    kept: list[str] = []
    lightning_internals.log_missing.cache_clear()
    handler = Kept()
    lightning_internals.log.addHandler(handler)
    yield kept
    lightning_internals.log.removeHandler(handler)
    lightning_internals.log_missing.cache_clear()


def weights(folder: Path, name: str = "best") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same_training(one: Path, other: Path) -> None:
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
    assert weights(one).keys() == weights(other).keys()
    assert all(torch.equal(value, weights(other)[key]) for key, value in weights(one).items())


@pytest.fixture(scope="module")
def normal(compose_config, tmp_path_factory) -> Path:
    """Return the folder of a run with this Lightning as it is."""
    folder = tmp_path_factory.mktemp("normal")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    fit(compose_config(*SMALL, *QUIET), folder / "run")
    torch.set_num_threads(threads)
    return folder / "run"


@pytest.fixture
def multi_step_calls(monkeypatch) -> list[int]:
    """Return the list of global steps at which MultiStepModule was called."""
    step, calls = MultiStepModule.training_step, []

    def counted(self, dataloader_iter) -> None:
        calls.append(self.global_step)
        step(self, dataloader_iter)

    monkeypatch.setattr(MultiStepModule, "training_step", counted)
    return calls


def test_nothing_is_logged_when_nothing_is_missing(compose_config, normal, tmp_path, lines, multi_step_calls) -> None:
    fit(compose_config(*SMALL, *QUIET), tmp_path / "run")

    assert lines == []
    assert multi_step_calls
    assert_same_training(tmp_path / "run", normal)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (_TrainingEpochLoop, "_batches_that_stepped"),
        (_TrainingEpochLoop, "batch_progress"),
        (_TrainingEpochLoop, "manual_optimization"),
        (ModelCheckpoint, "_every_n_train_steps"),
        (ModelCheckpoint, "_train_time_interval"),
    ],
)
def test_without_the_counters_of_the_loop_single_steps_give_the_same_weights(
    compose_config, normal, tmp_path, remove, lines, multi_step_calls, owner, name
) -> None:
    remove(owner, name)

    fit(compose_config(*SMALL, *QUIET), tmp_path / "run")

    assert multi_step_calls == []
    assert_same_training(tmp_path / "run", normal)
    assert len(lines) == 1
    assert name in lines[0]
    assert "single steps" in lines[0]


def test_hooks_stay_when_the_trainer_calls_a_hook_that_is_none(
    compose_config, normal, tmp_path, monkeypatch, lines
) -> None:
    def call_every_hook(trainer, hook_name, *args, monitoring_callbacks=None, **kwargs) -> None:
        for callback in trainer.callbacks:
            getattr(callback, hook_name)(trainer, trainer.lightning_module, *args, **kwargs)

    monkeypatch.setattr(call, "_call_callback_hooks", call_every_hook)

    fit(compose_config(*SMALL, *QUIET), tmp_path / "run")

    assert weights(tmp_path / "run").keys() == weights(normal).keys()
    assert all(torch.equal(value, weights(normal)[key]) for key, value in weights(tmp_path / "run").items())
    assert len(lines) == 1
    assert "empty hooks are called" in lines[0]


@pytest.mark.parametrize("name", ["_call_callback_hooks", "_call_lightning_module_hook"])
def test_hooks_stay_when_the_functions_that_call_them_are_renamed(monkeypatch, lines, name) -> None:
    callback, module = Callback(), L.LightningModule()
    monkeypatch.delattr(call, name)

    skip_idle_hooks(module, [callback])

    assert callable(callback.on_after_backward)
    assert callable(module.on_after_backward)
    assert len(lines) == 1


def test_hooks_without_an_override_are_none_with_this_lightning(lines) -> None:
    callback, module = Callback(), L.LightningModule()

    skip_idle_hooks(module, [callback])

    assert callback.on_after_backward is None
    assert module.on_after_backward is None
    assert lines == []


class InterruptionError(Exception):
    """Stands for the end of a process in the middle of an epoch."""


class InterruptAt(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise InterruptionError


def interrupt(config, folder: Path, epoch: int) -> None:
    """Train into a folder up to the end of an epoch."""
    make_trainer = parts.make_trainer

    def trainer_with(cfg, run_dir, callbacks, **more) -> L.Trainer:
        return make_trainer(cfg, run_dir, [*callbacks, InterruptAt(epoch)], **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "make_trainer", trainer_with)
        with pytest.raises(InterruptionError):
            fit(config, folder)


def rename_epoch_progress(monkeypatch) -> None:
    """Make Lightning store the progress of epochs under another key of a checkpoint."""
    state_dict = _FitLoop.state_dict

    def renamed(self, *args, **kwargs):
        state = state_dict(self, *args, **kwargs)
        state["epochs"] = state.pop("epoch_progress")
        return state

    monkeypatch.setattr(_FitLoop, "state_dict", renamed)


LACKS = {
    "_restarting": lambda remove, monkeypatch: remove(_Loop, "_restarting"),
    "reset_restart_stage": lambda remove, monkeypatch: remove(_FitLoop, "reset_restart_stage"),
    "epoch_progress": lambda remove, monkeypatch: rename_epoch_progress(monkeypatch),
}
LACKING = pytest.mark.parametrize("lack", LACKS)


@LACKING
def test_without_restart_state_no_last_checkpoint_is_written_and_a_run_starts_over(
    compose_config, normal, tmp_path, remove, monkeypatch, lines, lack
) -> None:
    LACKS[lack](remove, monkeypatch)
    config = compose_config(*SMALL, *QUIET)

    interrupt(config, tmp_path / "run", 1)

    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert len(lines) == 1
    assert lack in lines[0]
    assert "last.ckpt is not written" in lines[0]
    fit(config, tmp_path / "run")
    assert_same_training(tmp_path / "run", normal)


@LACKING
def test_without_restart_state_a_checkpoint_of_an_earlier_version_is_refused(
    compose_config, tmp_path, remove, monkeypatch, lines, lack
) -> None:
    config = compose_config(*SMALL, *QUIET)
    interrupt(config, tmp_path / "run", 1)
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    LACKS[lack](remove, monkeypatch)

    with pytest.raises(UserError, match=r"last\.ckpt cannot be resumed.*start over with resume=false"):
        fit(config, tmp_path / "run")

    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_run_with_this_lightning_resumes_after_the_last_complete_epoch(
    compose_config, normal, tmp_path, lines
) -> None:
    config = compose_config(*SMALL, *QUIET)

    interrupt(config, tmp_path / "run", 1)
    fit(config, tmp_path / "run")

    assert lines == []
    assert_same_training(tmp_path / "run", normal)


def test_without_the_progress_of_epochs_a_moment_is_not_between_epochs(lines) -> None:
    trainer = SimpleNamespace(fit_loop=SimpleNamespace())

    assert lightning_internals.is_between_epochs(trainer) is False
    assert len(lines) == 1


def test_without_the_file_writer_scalars_are_logged_and_the_hparams_page_stays_empty(tmp_path, remove, lines) -> None:
    remove(SummaryWriter, "_get_file_writer")
    logger = RunTensorBoard(str(tmp_path))

    logger.declare_hparams({"model": "mlp", "seed": 0})
    logger.log_metrics({"train/loss": 2.0}, step=1)
    logger.finish_hparams()
    logger.finalize("success")

    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 2.0)]
    assert not [tag for tag in events.summary_metadata if "hparams" in tag]
    assert len(lines) == 1
    assert "HPARAMS" in lines[0]


def test_without_its_exception_an_error_of_torch_compile_is_raised_as_it_is(monkeypatch, lines) -> None:
    monkeypatch.setattr(torch, "_dynamo", SimpleNamespace())

    def compile_network() -> None:
        try:
            raise ZeroDivisionError
        except lightning_internals.compile_errors():
            return

    with pytest.raises(ZeroDivisionError):
        compile_network()

    assert len(lines) == 1


def test_batches_that_lightning_does_not_count_are_added_to_its_counters() -> None:
    counted = []
    steps = SimpleNamespace(optim_step_progress=SimpleNamespace(increment_by=None))
    progress = SimpleNamespace(increment_by=counted.append)
    loop = SimpleNamespace(_batches_that_stepped=3, batch_progress=progress, manual_optimization=steps)

    lightning_internals.StepCounters(loop).add(batches=2, steps=1)
    lightning_internals.StepCounters(loop).add(batches=5, steps=3)

    assert (loop._batches_that_stepped, counted) == (7, [2, 5])


@pytest.fixture
def optimizer():
    return torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], lr=0.1)


def closure_of(optimizer):
    (weights,) = optimizer.param_groups[0]["params"]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weights**2).sum()
        loss.backward()
        return loss

    return closure


def test_a_plain_step_is_the_step_of_the_optimizer(optimizer, lines) -> None:
    other = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], lr=0.1)

    for _ in range(3):
        loss = lightning_internals.plain_step(optimizer)(closure_of(optimizer))
        expected = other.step(closure_of(other))
        torch.testing.assert_close(loss, expected, rtol=0, atol=0)

    torch.testing.assert_close(optimizer.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert lightning_internals.plain_step(optimizer) != optimizer.step
    assert lines == []


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_hooks_of_an_optimizer_are_called(optimizer, register) -> None:
    calls = []
    getattr(optimizer, register)(lambda *args: calls.append(1))

    lightning_internals.plain_step(optimizer)(closure_of(optimizer))

    assert calls == [1]


@pytest.mark.parametrize("register", ["register_optimizer_step_pre_hook", "register_optimizer_step_post_hook"])
def test_hooks_of_all_optimizers_are_called(optimizer, register) -> None:
    calls = []
    handle = getattr(import_module("torch.optim.optimizer"), register)(lambda *args: calls.append(1))
    try:
        lightning_internals.plain_step(optimizer)(closure_of(optimizer))
    finally:
        handle.remove()

    assert calls == [1]


def test_a_profiler_sees_the_step(optimizer) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        lightning_internals.plain_step(optimizer)(closure_of(optimizer))

    assert "Optimizer.step#Adam.step" in {event.key for event in profile.key_averages()}


def test_a_schedule_knows_that_a_plain_step_was_taken(optimizer, recwarn) -> None:
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    step = lightning_internals.plain_step(optimizer)
    step(closure_of(optimizer))
    schedule.step()

    assert step != optimizer.step
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert [str(each.message) for each in recwarn if "lr_scheduler.step()" in str(each.message)] == []


def test_a_step_that_a_user_replaced_is_called(optimizer, monkeypatch) -> None:
    monkeypatch.setattr(optimizer, "step", lambda closure: "replaced")

    assert lightning_internals.plain_step(optimizer)(None) == "replaced"


def test_a_step_that_a_user_wrapped_is_called(optimizer) -> None:
    calls = []

    class Wrapped(torch.optim.Adam):
        @wraps(torch.optim.Adam.step)  # copies the mark of PyTorch's own wrapper
        def step(self, closure=None):
            calls.append(1)
            return super().step(closure)

    wrapped = Wrapped(optimizer.param_groups[0]["params"], lr=0.1)
    lightning_internals.plain_step(wrapped)(closure_of(wrapped))

    assert calls == [1]


def test_an_optimizer_that_pytorch_did_not_prepare_is_called_without_a_warning(optimizer, lines) -> None:
    class Own(torch.optim.Adam):
        def _patch_step_function(self) -> None:
            self._zero_grad_profile_name = ""

        def step(self, closure=None):
            return super().step(closure)

    own = Own(optimizer.param_groups[0]["params"], lr=0.1)

    assert lightning_internals.plain_step(own) == own.step
    assert lines == []


def test_without_the_hooks_of_an_optimizer_its_step_is_called(optimizer, lines) -> None:
    del optimizer._optimizer_step_pre_hooks

    assert lightning_internals.plain_step(optimizer) == optimizer.step
    assert len(lines) == 1
    assert "optimizer step" in lines[0]
