"""A run that is interrupted and resumed has the same results as an uninterrupted run."""

import csv
import hashlib
import itertools
import json
import logging
import os
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path

import lightning as L
import pytest
import torch
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agebench.errors import UserError
from agebench.runs import description
from agebench.runs import writer as writing
from agebench.runs.identity import config_hash
from agebench.training import fit as fitting
from agebench.training import parts, resume
from agebench.training.checkpoints import AtomicCheckpointIO, keep_best, kept_file, move_paths
from agebench.training.fit import fit

EPOCHS = 4
BASE = (
    "data=digits",
    "data.limit=400",
    "data.batch_size=100",
    "model.hidden=[16]",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "callbacks.progress=null",
    "report=false",
)  # 320 training images, 4 steps per epoch


STARTS = itertools.count()


class Killed(BaseException):
    """Simulates kill -9: nothing is written after it."""


class At(L.Callback):
    """Calls a function in a hook of an epoch or of the test."""

    def __init__(self, hook: str, epoch: int, act) -> None:
        def call(trainer: L.Trainer, *args: object) -> None:
            if trainer.state.fn != "fit" or trainer.current_epoch == epoch:
                act()

        setattr(self, hook, call)


@pytest.fixture(autouse=True)
def one_thread():
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, handler)  # Lightning ignores further Ctrl-C after the first


@pytest.fixture
def train(compose_config, monkeypatch):
    """Return a function that trains into a folder. It calls `act` in the hook `at`, or `inside` to patch functions."""
    make_trainer, write = parts.make_trainer, writing.write_json

    def start(folder: Path, *overrides: str, at=None, act=None, inside=None) -> float | None:
        dead = False

        def die(*args: object, **named: object) -> None:
            nonlocal dead
            dead = True
            raise Killed

        def trainer_with(cfg, run_dir, callbacks, **more):
            return make_trainer(cfg, run_dir, [*callbacks, *([At(*at, act or die)] if at else [])], **more)

        with monkeypatch.context() as patch:
            # TensorBoard sorts event files by name: second, host, process, counter.
            patch.setattr(socket, "gethostname", lambda: f"start{next(STARTS):06d}")
            patch.setattr(parts, "make_trainer", trainer_with)
            patch.setattr(writing, "write_json", lambda *given, **more: None if dead else write(*given, **more))
            patch.setattr(L.pytorch.trainer.call, "_interrupt", lambda *given: die() if dead else interrupt(*given))
            if inside:
                inside(patch, die)
            try:
                return fit(compose_config(*BASE, *overrides), folder)
            except Killed:
                assert json.loads((folder / "results.json").read_text())["status"] == "running"
                return None

    interrupt = L.pytorch.trainer.call._interrupt
    return start


def full_results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def results(folder: Path) -> dict:
    found = full_results(folder)
    for key in ("timing", "resumed", "git"):
        found.pop(key)
    return found


def weights(folder: Path, name: str) -> dict:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def scalars(folder: Path) -> dict:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_same(one: Path, other: Path) -> None:
    assert results(one) == results(other)
    for name in ("metrics.csv", "predictions.csv", "split.csv", "per_class.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for name in ("best", "last"):
        a, b = weights(one, name), weights(other, name)
        assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])
        assert a["state_dict"].keys() == b["state_dict"].keys()
        assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])
    torch.testing.assert_close(
        weights(one, "last")["optimizer_states"], weights(other, "last")["optimizer_states"], rtol=0, atol=0
    )
    assert repr(sorted(scalars(one).items())) == repr(sorted(scalars(other).items()))  # nan is not equal to nan


STILL = ("optim=sgd", "optim.lr=1e-6", "model.batch_norm=false")  # the first epoch stays the best
KINDS = {
    "adam": (),
    "momentum and one_cycle": ("optim=momentum", "scheduler=one_cycle"),
    "cosine": ("scheduler=cosine", "scheduler.warmup_epochs=1"),
    "plateau": (*STILL, "scheduler=plateau", "scheduler.patience=0"),
    "two epochs a validation": (
        *STILL,
        "scheduler=plateau",
        "scheduler.patience=0",
        "trainer.check_val_every_n_epoch=2",
        "trainer.max_epochs=6",
    ),
    "two validations an epoch": ("trainer.val_check_interval=2",),
    "augmented": ("augment=digits", "augment.mixup=0.2", "augment.cutmix=1.0", "data.num_workers=1"),
    "max_steps": ("trainer.max_steps=14", "trainer.max_epochs=-1"),
    "train loss": ("monitor=train/loss", "trainer.check_val_every_n_epoch=2", "test_checkpoint=last"),
    "ema": ("optim=adamw", "optim.layer_decay=0.5", "ema.decay=0.9"),
    "swa": ("swa.start=0.5", "augment=digits", "augment.mixup=0.2", "optim.lr=1e-2"),
    "fp16": ("trainer.precision=16-mixed", "trainer.gradient_clip_val=0.5"),
    "accumulated": ("trainer.accumulate_grad_batches=3", "scheduler=cosine", "trainer.gradient_clip_val=0.5"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Return a folder for the runs that several tests compare with."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def uninterrupted_with(train, shared):
    """Return a function that returns the read-only folder of an uninterrupted run with overrides, trained once."""

    def once(*overrides: str) -> Path:
        folder = shared / (" ".join(overrides).replace("/", "") or "plain")
        if not (folder / "results.json").exists():
            train(folder, *overrides)
        return folder

    return once


@pytest.fixture
def uninterrupted(uninterrupted_with) -> Path:
    """Return the read-only folder of an uninterrupted run."""
    return uninterrupted_with()


@pytest.mark.ci
@pytest.mark.usefixtures("half_precision_on_a_cpu")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_in_every_epoch_has_the_same_results(train, tmp_path, kind) -> None:
    train(tmp_path / "uninterrupted", *KINDS[kind])

    for epoch in range(EPOCHS):
        assert train(tmp_path / "killed", *KINDS[kind], at=("on_train_batch_start", epoch)) is None
    train(tmp_path / "killed", *KINDS[kind])

    assert_same(tmp_path / "killed", tmp_path / "uninterrupted")
    assert full_results(tmp_path / "killed")["resumed"] == EPOCHS - 1


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["momentum and one_cycle", "cosine", "plateau", "two epochs a validation"])
def test_the_schedules_above_change_the_rate(train, tmp_path, kind) -> None:
    train(tmp_path / "run", *KINDS[kind])

    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8-sig") as lines:
        assert len({row["lr"] for row in csv.DictReader(lines)}) > 1


HOOKS = [
    "on_train_epoch_start",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_end",
    "on_train_epoch_end",
    "on_save_checkpoint",
]


@pytest.mark.ci
@pytest.mark.parametrize("hook", HOOKS)
def test_a_run_that_is_killed_in_any_hook_has_the_same_results(train, tmp_path, uninterrupted, hook) -> None:
    for epoch in (0, 2, 3):
        assert train(tmp_path / "killed", at=(hook, epoch)) is None
    train(tmp_path / "killed")

    assert_same(tmp_path / "killed", uninterrupted)


@pytest.mark.ci
@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
@pytest.mark.parametrize("moment", ["half", "after"])
def test_a_partly_written_checkpoint_is_not_used(train, tmp_path, uninterrupted, name, moment) -> None:
    save = AtomicCheckpointIO.save_checkpoint

    def killed_in_the_third(patch, die) -> None:
        count = 0

        def saving(self, checkpoint, path, storage_options=None):
            nonlocal count
            count += Path(path).name == name
            if count < 3 or Path(path).name != name:
                return save(self, checkpoint, path)
            if moment == "after":
                save(self, checkpoint, path)
            else:
                Path(f"{path}.77-1.part").write_bytes(Path(path).read_bytes()[:3_000])
            return die()

        patch.setattr(AtomicCheckpointIO, "save_checkpoint", saving)

    assert train(tmp_path / "killed", inside=killed_in_the_third) is None
    train(tmp_path / "killed")

    assert full_results(tmp_path / "killed")["resumed"] == 1
    assert_same(tmp_path / "killed", uninterrupted)
    assert sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


STOPPED = (*STILL, "callbacks.early_stopping.patience=2")


@pytest.mark.ci
@pytest.mark.parametrize("line", [STOPPED, ()], ids=["stopped early", "all epochs"])
@pytest.mark.parametrize("place", ["before the test", "in the test", "in the tables", "in the report"])
def test_a_run_that_is_killed_after_training_does_not_train_again(
    train, uninterrupted_with, tmp_path, monkeypatch, line, place
) -> None:
    line = (*line, "report=true") if place == "in the report" else line

    def inside(patch, die) -> None:
        if place == "before the test":
            patch.setattr(fitting, "_best_epoch", die)
        elif place == "in the tables":
            patch.setattr(fitting, "write_breakdown", die)
        else:
            patch.setattr(fitting, "write_report_arrays", die)

    uninterrupted = uninterrupted_with(*line)
    if place == "in the test":
        train(tmp_path / "killed", *line, at=("on_test_batch_start", 0))
    else:
        train(tmp_path / "killed", *line, inside=inside)
    began: list[int] = []
    train(tmp_path / "killed", *line, at=("on_train_batch_start", 0), act=lambda: began.append(1))

    assert began == []
    assert_same(tmp_path / "killed", uninterrupted)
    assert full_results(tmp_path / "killed")["epochs"] == (3 if line[:1] == STOPPED[:1] else EPOCHS)


def test_early_stopping_resumes_its_count_and_is_logged_once(train, tmp_path, caplog) -> None:
    line = (*STILL, "callbacks.early_stopping.patience=3", "trainer.max_epochs=9")
    caplog.set_level(logging.INFO)
    for epoch in (1, 2):
        train(tmp_path / "killed", *line, at=("on_train_batch_start", epoch))
    train(tmp_path / "killed", *line)

    assert full_results(tmp_path / "killed")["epochs"] == 4  # the first, and three without improvement
    stopped = [message for message in caplog.messages if message.startswith("stopped early")]
    assert stopped == ["stopped early after epoch 4: val/accuracy did not improve for 3 epochs"]


def test_a_training_that_ends_with_its_last_epoch_has_not_stopped_early(train, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)

    train(tmp_path / "run", *STILL, "callbacks.early_stopping.patience=1", "trainer.max_epochs=2")

    assert full_results(tmp_path / "run")["epochs"] == 2
    assert not any(message.startswith("stopped early") for message in caplog.messages)


def test_min_epochs_holds_for_a_run_that_is_resumed_after_early_stopping(train, tmp_path) -> None:
    line = (*STILL, "callbacks.early_stopping.patience=1", "trainer.max_epochs=9", "trainer.min_epochs=5")
    train(tmp_path / "uninterrupted", *line)
    for epoch in (2, 3):
        train(tmp_path / "killed", *line, at=("on_train_batch_start", epoch))
    train(tmp_path / "killed", *line)

    assert full_results(tmp_path / "uninterrupted")["epochs"] == 5
    assert_same(tmp_path / "killed", tmp_path / "uninterrupted")


def test_ctrl_c_logs_the_command_to_resume(train, tmp_path, uninterrupted, caplog) -> None:
    def ctrl_c() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end, caplog.at_level(logging.WARNING):
        train(tmp_path / "killed", at=("on_train_batch_end", 2), act=ctrl_c)
    status = full_results(tmp_path / "killed")["status"]
    train(tmp_path / "killed")

    assert end.value.code == 1
    assert status == "interrupted"
    assert f"python -m agebench.train resume={tmp_path / 'killed'}" in caplog.text
    assert_same(tmp_path / "killed", uninterrupted)


def test_a_change_of_the_users_own_code_is_reported_when_a_run_is_resumed_or_skipped(
    train, tmp_path, monkeypatch, caplog
) -> None:
    def ctrl_c() -> None:
        raise KeyboardInterrupt

    monkeypatch.syspath_prepend(str(tmp_path))
    texts = [f"from agebench.models import MLP\n\n\nclass Net(MLP):\n    version = {i}\n" for i in range(3)]
    lines = [f"own_net {hashlib.sha256(text.encode()).hexdigest()}\n" for text in texts]
    shas = [hashlib.sha256(line.encode()).hexdigest()[:12] for line in lines]
    found = []
    for text, act in zip(texts, (ctrl_c, None, None), strict=True):
        (tmp_path / "own_net.py").write_text(text)
        at = ("on_train_batch_end", 2) if act else None
        with suppress(SystemExit), caplog.at_level(logging.WARNING):
            train(tmp_path / "run", "model._target_=own_net.Net", at=at, act=act)
        found.append({key: full_results(tmp_path / "run").get(key) for key in ("code", "earlier_code")})

    codes = [{"own_net.Net": sha} for sha in shas]
    resumed = {"code": codes[1], "earlier_code": [codes[0]]}
    assert found == [{"code": codes[0], "earlier_code": None}, resumed, resumed]  # a finished run is not changed
    assert f"python -m agebench.train resume={tmp_path / 'run'} trust=true" in caplog.text
    warnings = [message.partition(": ")[0] for message in caplog.messages if "other code" in message]
    assert warnings == [
        f"{tmp_path / 'run'} is resumed after epochs that were trained with other code "
        f"(own_net.Net was {shas[0]} and is {shas[1]} now)",
        f"{tmp_path / 'run'} is complete, and was trained with other code "
        f"(own_net.Net was {shas[1]} and is {shas[2]} now)",
    ]


def test_sigterm_at_the_end_of_an_epoch_keeps_the_epoch(train, tmp_path, uninterrupted) -> None:
    with pytest.raises(SystemExit) as end:
        train(tmp_path / "killed", at=("on_validation_end", 2), act=lambda: os.kill(os.getpid(), signal.SIGTERM))
    status, finished = full_results(tmp_path / "killed")["status"], weights(tmp_path / "killed", "last")["epoch"]
    train(tmp_path / "killed")

    assert end.value.code == 1
    assert status == "interrupted"
    assert finished == 2
    assert_same(tmp_path / "killed", uninterrupted)


def test_a_failed_run_is_resumed(train, tmp_path, uninterrupted) -> None:
    def fail() -> None:
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        train(tmp_path / "killed", at=("on_train_batch_start", 3), act=fail)
    before = full_results(tmp_path / "killed")
    train(tmp_path / "killed")

    assert before["status"] == "failed"
    assert before["error"].startswith("RuntimeError: the disk is full at ")  # this file and its line
    assert full_results(tmp_path / "killed")["resumed"] == 1
    assert_same(tmp_path / "killed", uninterrupted)


def test_a_failure_before_the_data_is_read_keeps_the_checkpoints(train, tmp_path, uninterrupted) -> None:
    def no_data(patch, die) -> None:
        patch.setattr(parts, "build_data", die)

    train(tmp_path / "killed", at=("on_train_batch_start", 2))
    train(tmp_path / "killed", at=("on_train_batch_start", 3))
    train(tmp_path / "killed", inside=no_data)
    train(tmp_path / "killed")

    assert full_results(tmp_path / "killed")["resumed"] == 2
    assert_same(tmp_path / "killed", uninterrupted)


def test_a_run_that_was_moved_is_resumed_in_its_new_folder(train, tmp_path, uninterrupted, recwarn) -> None:
    train(tmp_path / "there", at=("on_train_batch_start", 2))
    (tmp_path / "there").rename(tmp_path / "here")
    train(tmp_path / "here")

    assert_same(tmp_path / "here", uninterrupted)
    assert not [w for w in recwarn if "dirpath" in str(w.message)]


def test_a_run_that_is_killed_in_the_first_epoch_starts_over(train, tmp_path, uninterrupted) -> None:
    train(tmp_path / "killed", at=("on_validation_start", 0))
    old = {path.name for path in (tmp_path / "killed").glob("events*")}
    train(tmp_path / "killed")

    assert old
    assert not old & {path.name for path in (tmp_path / "killed").glob("events*")}
    assert full_results(tmp_path / "killed")["resumed"] == 0
    assert_same(tmp_path / "killed", uninterrupted)


def test_resume_false_starts_over_but_keeps_a_finished_run(train, tmp_path, uninterrupted) -> None:
    train(tmp_path / "killed", at=("on_train_batch_start", 2))
    train(tmp_path / "killed", "resume=false")
    before = (uninterrupted / "results.json").read_bytes()
    train(uninterrupted, "resume=false")

    assert full_results(tmp_path / "killed")["resumed"] == 0
    assert_same(tmp_path / "killed", uninterrupted)
    assert (uninterrupted / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (("optim.lr=0.5",), r"unfinished run of another config \(optim.lr=0.5\): starting over"),
        (("data.limit=300",), r"unfinished run of another config \(data.limit=300\): starting over"),
    ],
)
def test_an_unfinished_run_of_another_config_is_not_resumed(
    train, tmp_path, uninterrupted, caplog, first, message
) -> None:
    train(tmp_path / "killed", *first, at=("on_train_batch_start", 3))
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "killed")

    assert len([r for r in caplog.records if "starting over" in r.getMessage()]) == 1
    assert re.search(message, caplog.text)
    assert full_results(tmp_path / "killed")["resumed"] == 0
    assert_same(tmp_path / "killed", uninterrupted)


def test_a_setting_without_effect_may_change_on_resume(train, tmp_path, uninterrupted) -> None:
    train(tmp_path / "killed", at=("on_train_batch_start", 2))
    train(tmp_path / "killed", "data.num_workers=1", "trainer.log_every_n_steps=1", "logger=tensorboard_csv")

    assert full_results(tmp_path / "killed")["resumed"] == 1
    assert_same(tmp_path / "killed", uninterrupted)


def test_a_run_on_changed_labels_starts_over(train, tmp_path, uninterrupted, caplog, monkeypatch) -> None:
    def others(patch, die) -> None:
        patch.setattr(description, "data_sha", lambda plan: "0" * 16)

    train(tmp_path / "killed", at=("on_train_batch_start", 2), inside=others)
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "killed")

    assert "on other images or labels: starting over" in caplog.text
    assert_same(tmp_path / "killed", uninterrupted)


@pytest.mark.ci
@pytest.mark.parametrize("damage", ["half", "empty", "of Lightning's"])
def test_a_run_with_an_unreadable_last_checkpoint_starts_over(train, tmp_path, uninterrupted, caplog, damage) -> None:
    train(tmp_path / "killed", at=("on_train_batch_start", 2))
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    if damage == "of Lightning's":
        held = torch.load(last, weights_only=True)
        del held["callbacks"]["LastCheckpoint"]
        torch.save(held, last)
    else:
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2 if damage == "half" else 0])
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "killed")

    assert "cannot resume from " in caplog.text
    assert_same(tmp_path / "killed", uninterrupted)


SHA_OF_NOTHING = "e3b0c44298fc1c14"


def write_checkpoint(path: Path, step: int, **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {"state_dict": {}, "agebench": {"weights_sha": SHA_OF_NOTHING}}
    torch.save({"global_step": step, "weight": torch.tensor(float(step)), **weights, **more}, path)


def written_run(folder: Path, *, last: int, best: int | None, kept: int | None) -> tuple[dict, Path]:
    """Write checkpoints of the given steps, and return the config and the folder of checkpoints."""
    checkpoints, config = folder / "checkpoints", {"seed": 0}
    state = {"best_model_path": "/old/best.ckpt", "dirpath": "/old", "best_k_models": {}}
    state |= {"kth_best_model_path": "", "last_model_path": ""}
    stamp = {"weights_sha": SHA_OF_NOTHING, "config": config, "config_hash": config_hash(config), "data_sha": "sha"}
    callbacks = {"ModelCheckpoint": state, "LastCheckpoint": {"epochs": 3}}
    write_checkpoint(checkpoints / "last.ckpt", last, callbacks=callbacks, agebench=stamp)
    for name, step in (("best.ckpt", best), (kept_file(checkpoints).name, kept)):
        if step is not None:
            write_checkpoint(checkpoints / name, step)
    return config, checkpoints


@pytest.mark.parametrize(
    ("best", "kept", "right"),
    [(12, None, 12), (8, 4, 8), (16, 8, 8), (16, None, None), (16, 16, None), (None, 8, 8), (None, None, None)],
)
def test_a_best_checkpoint_of_a_lost_epoch_is_replaced_by_the_one_before(tmp_path, best, kept, right) -> None:
    config, checkpoints = written_run(tmp_path, last=12, best=best, kept=kept)

    start = resume.find_start(tmp_path, {}, config=config, sha="sha", resume="auto")
    resume.prepare(tmp_path, start)

    if right is None:
        assert start == resume.Start()
        assert list(checkpoints.iterdir()) == []
    else:
        assert (start.epochs, start.step) == (3, 12)
        for path in (checkpoints / "best.ckpt", kept_file(checkpoints)):
            assert torch.load(path, weights_only=True)["weight"] == right


def test_the_best_checkpoint_is_kept_when_it_is_replaced(tmp_path) -> None:
    write_checkpoint(tmp_path / "best.ckpt", 1)
    keep_best(tmp_path / "best.ckpt")
    keep_best(tmp_path / "best.ckpt")

    write_checkpoint(tmp_path / "new", 2)
    (tmp_path / "new").replace(tmp_path / "best.ckpt")

    assert torch.load(kept_file(tmp_path), weights_only=True)["weight"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["best.ckpt", kept_file(tmp_path).name])


def test_temporary_files_of_a_killed_process_are_removed(tmp_path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("predictions.csv.77-1.part", "checkpoints/last.ckpt.77-1.part", "split.csv"):
        (tmp_path / name).touch()

    resume.prepare(tmp_path, resume.Start())

    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["split.csv"]


# Every file of a run, except checkpoints, that is removed when the run starts over.
LEFT = (
    "metrics.csv",
    "predictions.csv",
    "per_class.csv",
    "error_by_decade.csv",
    "cs_curve.csv",
    "projector_config.pbtxt",
    "events.out.tfevents.1",
    "report/index.html",
)


def test_a_run_that_starts_over_removes_the_old_files(tmp_path) -> None:
    (tmp_path / "report").mkdir()
    for name in (*LEFT, "results.json"):
        (tmp_path / name).touch()

    resume.prepare(tmp_path, resume.Start())

    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_resumed_run_keeps_its_files_except_its_page(tmp_path) -> None:
    config, _ = written_run(tmp_path, last=12, best=12, kept=None)
    (tmp_path / "report").mkdir()
    for name in LEFT:
        (tmp_path / name).touch()

    resume.prepare(tmp_path, resume.find_start(tmp_path, {}, config=config, sha="sha", resume="auto"))

    page = "report/index.html"  # made for the unfinished run
    assert [name for name in LEFT if not (tmp_path / name).is_file()] == [page]


FINISHED = {"status": "completed", "config": "c0ffee", "data_sha": "5ha", "best": {"value": 0.75}}


def test_a_finished_run_of_the_same_config_and_data_is_complete(tmp_path) -> None:
    assert resume.finished(tmp_path, FINISHED, config="c0ffee", sha=lambda: "5ha") == 0.75


@pytest.mark.parametrize(
    ("config", "sha", "reason"),
    [
        ("c0ffee", "0ther", "finished run of this config, but the images or labels have changed"),
        ("0ther", "5ha", "holds a finished run of another config"),
    ],
)
def test_a_finished_run_on_other_data_or_of_another_config_raises(tmp_path, config, sha, reason) -> None:
    with pytest.raises(UserError, match=reason):
        resume.finished(tmp_path, FINISHED, config=config, sha=lambda: sha)


@pytest.mark.parametrize("quiet", [False, True])
def test_a_finished_run_logs_a_message_unless_quiet(tmp_path, caplog, quiet) -> None:
    with caplog.at_level("INFO"):
        resume.finished(tmp_path, FINISHED, config="c0ffee", sha=lambda: "5ha", quiet=quiet)

    assert ("nothing to do" in caplog.text) is not quiet


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_is_not_complete(tmp_path, status) -> None:
    assert resume.finished(tmp_path, FINISHED | {"status": status}, config="c0ffee", sha=lambda: "0ther") is None


def test_move_paths_changes_the_folder_of_all_paths(tmp_path) -> None:
    state = {
        "dirpath": "/old/checkpoints",
        "best_model_path": "/old/checkpoints/best.ckpt",
        "kth_best_model_path": "/old/checkpoints/best.ckpt",
        "last_model_path": "",
        "best_k_models": {"/old/checkpoints/best.ckpt": 0.5},
    }

    move_paths(state, tmp_path)

    best = str(tmp_path / "best.ckpt")
    assert (state["dirpath"], state["best_model_path"], state["kth_best_model_path"]) == (str(tmp_path), best, best)
    assert state["best_k_models"] == {best: 0.5}
    assert state["last_model_path"] == ""


def test_the_time_of_all_starts_is_summed(train, tmp_path) -> None:
    for epoch in (1, 2, 3):
        train(tmp_path / "killed", at=("on_train_batch_start", epoch))
        saved = weights(tmp_path / "killed", "last")["callbacks"]["Speed"]
    train(tmp_path / "killed")

    end = weights(tmp_path / "killed", "last")["callbacks"]["Speed"]
    assert len(end["epochs"]) == EPOCHS
    assert end["fit_s"] > saved["fit_s"] > sum(epoch[0] for epoch in saved["epochs"])
    assert full_results(tmp_path / "killed")["timing"]["fit_s"] >= round(end["fit_s"], 3)


def test_two_processes_cannot_write_the_same_run(compose_config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "LOCK_WAIT_S", 0)

    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="another process is writing"):
        fit(compose_config(*BASE), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [".lock"]  # the lock file is kept


def test_tensorboard_shows_a_resumed_run_as_one_run(train, tmp_path) -> None:
    train(tmp_path / "killed", at=("on_train_batch_start", 2))
    train(tmp_path / "killed")

    events = EventAccumulator(str(tmp_path / "killed")).Reload()
    assert {tag for tag in events.summary_metadata if tag.startswith("_hparams_")} == {
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }
    steps = [e.step for e in events.Scalars("x_steps/loss")]
    assert steps == list(range(4 * EPOCHS))
