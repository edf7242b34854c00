"""The messages by which a point reports its progress to the sweep."""

from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
import torch

from agebench.training import sweep_progress
from agebench.training.sweep_progress import SweepProgress


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    made = SimpleNamespace(now=100.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(sweep_progress, "time", made)
    return made


def make_trainer(**changes) -> SimpleNamespace:
    known = {"max_epochs": 10, "num_training_batches": 4, "is_global_zero": True, "callback_metrics": {}}
    return SimpleNamespace(current_epoch=2, **known | changes)


def received(line) -> list[dict]:
    return [line.recv() for _ in iter(line.poll, False)]


def test_messages_have_the_epoch_and_the_time_left_since_the_start_of_a_resumed_run(clock) -> None:
    ours, theirs = Pipe(duplex=False)
    trainer = make_trainer()
    callback = SweepProgress(theirs, SimpleNamespace(now=50.0, images_per_s=40.0))

    callback.on_train_start(trainer, None)
    clock.now += 30
    trainer.callback_metrics = {"val/accuracy": torch.tensor(0.5), "val/loss": torch.tensor(2.0)}
    callback.on_train_epoch_end(trainer, None)
    trainer.current_epoch = 3
    clock.now += 0.25
    callback.on_train_batch_end(trainer, None, None, None, 0)  # too early for another message
    clock.now += 0.75
    callback.on_train_batch_end(trainer, None, None, None, 1)

    common = {"epochs": 10, "metrics": {"val/accuracy": 0.5}}
    assert received(ours) == [
        {"epoch": 3, "epochs": 10, "metrics": {}, "images_per_s": 50.0, "left_s": None, "epoch_ended": False},
        {**common, "epoch": 3, "images_per_s": 40.0, "left_s": 30 * 7, "epoch_ended": True},
        {**common, "epoch": 4, "images_per_s": 50.0, "left_s": pytest.approx(31 / 1.5 * 6.5), "epoch_ended": False},
    ]


def test_a_run_without_a_number_of_epochs_has_no_time_left(clock) -> None:
    ours, theirs = Pipe(duplex=False)
    callback = SweepProgress(theirs, SimpleNamespace(now=0.0, images_per_s=0.0))

    callback.on_train_start(make_trainer(max_epochs=-1), None)
    clock.now += 5
    callback.on_train_epoch_end(make_trainer(max_epochs=-1), None)

    assert [(message["epochs"], message["left_s"]) for message in received(ours)] == [(None, None), (None, None)]


def test_only_the_first_device_reports(clock) -> None:
    ours, theirs = Pipe(duplex=False)

    SweepProgress(theirs, SimpleNamespace(now=0.0)).on_train_start(make_trainer(is_global_zero=False), None)

    assert not ours.poll()


def test_a_sweep_that_has_ended_does_not_stop_the_run(clock) -> None:
    ours, theirs = Pipe(duplex=False)
    ours.close()
    callback = SweepProgress(theirs, SimpleNamespace(now=0.0, images_per_s=0.0))

    callback.on_train_start(make_trainer(), None)
    callback.on_train_epoch_end(make_trainer(), None)

    assert callback.line is None
