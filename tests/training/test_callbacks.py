"""Training speed, progress and metrics.csv."""

import csv
import re
import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning, EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from agebench.data.loader import Batch
from agebench.training import callbacks
from agebench.training.callbacks import EpochTable, Progress, Speed, failed_callback


class Line(L.LightningModule):
    """Logs metrics that depend only on the number of the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.images_seen = 0

    def on_train_epoch_start(self):
        self.images_seen = 0

    def training_step(self, batch, batch_index):
        self.images_seen += len(batch.target)
        return self.weight.sum()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.trainer.is_last_batch:
            self.log("train/loss", 10.0 + self.current_epoch, on_step=False, on_epoch=True)

    def validation_step(self, batch, batch_index):
        self.log("val/loss", 20.0 + self.current_epoch, batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.25)


def gather(items: list[torch.Tensor]) -> Batch:
    return Batch(torch.stack(items), torch.zeros(len(items), dtype=torch.int64), torch.arange(len(items)))


def fit(*own_callbacks: L.Callback, epochs: int = 3, **settings) -> L.Trainer:
    data = DataLoader(torch.ones(5, 1), batch_size=2, collate_fn=gather)  # 2, 2, 1
    off = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=list(own_callbacks), **off, **settings)
        trainer.fit(Line(), data, data)
    return trainer


def quiet_fit(*own_callbacks: L.Callback, **settings) -> L.Trainer:
    return fit(*own_callbacks, enable_progress_bar=False, **settings)


class Clock:
    """Replaces the time module."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(callbacks, "time", made)
    return made


def drive(speed: Speed, clock: Clock, epochs: list[tuple[float, float, float, int]], world_size: int = 1) -> None:
    """Simulate epochs given as (training seconds, waiting seconds within them, validation seconds, images)."""
    loader = SimpleNamespace(wait_s=0.0)
    trainer = SimpleNamespace(train_dataloader=loader, world_size=world_size)
    for seconds, waited, validation, images in epochs:
        speed.on_train_epoch_start(trainer, None)
        clock.now += seconds
        loader.wait_s += waited
        speed.on_train_batch_end(trainer, SimpleNamespace(images_seen=images), None, None, 0)
        speed.on_validation_start(trainer, None)
        clock.now += validation
        speed.on_validation_end(trainer, None)
        speed.on_train_epoch_end(trainer, None)


def test_speed_excludes_validation_and_the_first_epoch(clock) -> None:
    speed = Speed()

    drive(speed, clock, [(90.0, 80.0, 5.0, 10), (2.0, 0.5, 7.0, 100), (3.0, 0.25, 9.0, 150)])

    assert speed.images_per_s == pytest.approx(250 / 5)
    assert speed.data_wait_share == pytest.approx(0.75 / 5)


def test_speed_includes_the_first_epoch_if_there_is_no_other(clock) -> None:
    speed = Speed()

    drive(speed, clock, [(4.0, 1.0, 7.0, 100)])

    assert speed.images_per_s == pytest.approx(25)
    assert speed.data_wait_share == pytest.approx(0.25)


def test_speed_of_a_resumed_run_excludes_the_first_epoch_of_each_start(clock) -> None:
    first, second = Speed(), Speed()
    first.begin()
    drive(first, clock, [(90.0, 80.0, 5.0, 10), (2.0, 0.5, 7.0, 100)])
    stored = first.state_dict()

    clock.now += 1_000  # between the two starts
    second.begin()
    second.load_state_dict(stored)
    drive(second, clock, [(50.0, 40.0, 5.0, 10), (3.0, 0.25, 9.0, 150)])

    assert second.images_per_s == pytest.approx(250 / 5)
    assert second.data_wait_share == pytest.approx(0.75 / 5)
    assert second.fit_s == pytest.approx(90 + 5 + 2 + 7 + 50 + 5 + 3 + 9)


def test_speed_includes_the_images_of_all_devices(clock) -> None:
    speed = Speed()

    drive(speed, clock, [(1.0, 0, 0, 1), (4.0, 0, 0, 100)], world_size=2)

    assert speed.images_per_s == pytest.approx(50)


def test_speed_is_zero_before_training() -> None:
    assert (Speed().images_per_s, Speed().data_wait_share, Speed().now) == (0, 0, 0)


def test_speed_counts_each_image_of_an_epoch_of_a_trainer() -> None:
    speed = Speed()

    quiet_fit(speed, epochs=2)

    assert [images for _, _, images in speed._epochs] == [5, 5]
    assert speed.images_per_s > 0


def test_the_table_has_a_header_and_a_row_per_epoch(tmp_path) -> None:
    file = tmp_path / "metrics.csv"

    quiet_fit(EpochTable(file))

    rows = list(csv.DictReader(file.open(encoding="utf-8-sig")))
    assert list(rows[0])[:3] == ["epoch", "step", "lr"]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["step"] for row in rows] == ["3", "6", "9"]
    assert [float(row["train/loss"]) for row in rows] == [10, 11, 12]
    assert [float(row["val/loss"]) for row in rows] == [20, 21, 22]
    assert {float(row["lr"]) for row in rows} == {0.25}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_an_epoch_without_validation_has_no_validation_metrics(tmp_path) -> None:
    table = EpochTable(tmp_path / "metrics.csv")

    quiet_fit(table, epochs=5, check_val_every_n_epoch=2)

    assert [row.get("val/loss") for row in table.rows] == [None, 21, None, 23, None]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open(encoding="utf-8-sig")))
    assert [row["val/loss"] for row in rows] == ["", "21.0", "", "23.0", ""]


def test_a_checkpoint_stores_the_rows_of_the_table(tmp_path) -> None:
    table = EpochTable(tmp_path / "metrics.csv")
    trainer = quiet_fit(table, epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]

    resumed = EpochTable()
    resumed.load_state_dict(stored["EpochTable"])

    assert resumed.rows == table.rows
    assert [row["epoch"] for row in resumed.rows] == [0, 1]


def test_an_epoch_that_is_trained_again_replaces_its_row(tmp_path) -> None:
    table = EpochTable()
    table.load_state_dict({"rows": [{"epoch": 0, "train/loss": 5.0}, {"epoch": 2, "train/loss": 5.0}]})

    quiet_fit(table, epochs=1)

    assert [(row["epoch"], row["train/loss"]) for row in table.rows] == [(0, 10.0)]


def test_without_a_terminal_progress_prints_one_line_per_epoch(capsys) -> None:
    speed = Speed()

    quiet_fit(speed, Progress(speed))

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        figures = rf"train/loss {9 + number}\.0000  val/loss {19 + number}\.0000"
        assert re.fullmatch(rf"epoch {number}/3  {figures}  [\d,]+ img/s  eta \d+:\d\d:\d\d", line)
    assert lines[-1].endswith("eta 0:00:00")


def test_the_bar_counts_the_images_of_all_epochs(monkeypatch) -> None:
    shown = []
    monkeypatch.setattr(callbacks.Bar, "advance_to", lambda bar, done: shown.append((bar.label, done, bar.total)))
    speed = Speed()

    quiet_fit(speed, Progress(speed, refresh_rate=1), epochs=2)

    # 5 images in 3 steps an epoch; 5 / 3 and 10 / 3 are rounded
    first = [("epoch 1/2", done, 10) for done in (2, 3, 5, 5)]
    assert shown == [*first, *(("epoch 2/2", done, 10) for done in (7, 8, 10, 10))]


def test_without_a_number_of_epochs_the_remaining_time_is_unknown(capsys) -> None:
    speed = Speed()

    quiet_fit(speed, Progress(speed), epochs=-1, max_steps=4)

    assert re.fullmatch(r"(epoch \d/\?  .*  eta \?\n)+", capsys.readouterr().out)


def test_a_line_per_epoch_is_not_printed_if_progress_is_disabled(capsys, monkeypatch) -> None:
    monkeypatch.setenv("AGEBENCH_PROGRESS", "0")
    speed = Speed()

    quiet_fit(speed, Progress(speed))

    assert "epoch" not in capsys.readouterr().out


class OwnCallback(L.Callback):
    def on_train_start(self, trainer, module):
        module.missing  # noqa: B018


class FullDisk(ModelCheckpoint):
    def on_train_start(self, trainer, module):
        raise OSError(28, "No space left on device")


FullDisk.__module__ = ModelCheckpoint.__module__


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (EarlyStopping("val/none", check_on_train_epoch_end=False), "EarlyStopping"),
        (BaseFinetuning(), "BaseFinetuning"),
        (OwnCallback(), None),
        (FullDisk(), None),
    ],
)
def test_only_errors_that_lightnings_callbacks_cause_are_explained(callback, expected) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011  # the types differ; the name is the test
        quiet_fit(callback)

    assert failed_callback(raised.value) == expected
