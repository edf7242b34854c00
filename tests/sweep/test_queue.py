"""The order in which a sweep starts, watches and stops its jobs, with jobs that are pipes instead of processes."""

import json
import logging
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest

from agebench.interrupts import handle_signals
from agebench.sweep import queue
from agebench.sweep.board import Board
from agebench.sweep.job import Job
from agebench.sweep.point import Point
from agebench.sweep.queue import Queue
from agebench.sweep.slots import Slot


@dataclass
class Plan:
    """What a fake job does. It counts how often the queue looks at it, and acts on that count alone."""

    looks: int = 1  # it exits at this look
    code: int = 0
    status: str = "completed"  # in its results.json once it has exited
    messages: tuple[dict, ...] = ()  # one is sent at each look
    obeys: bool = True  # whether it exits on SIGINT
    raises: BaseException | None = None  # in the queue's loop, at the second look
    signals: int = 0  # sent to the test process at the second look
    wakes: str = ""  # what a thread does a moment after the start: "exit" or "send"


@dataclass
class World:
    """Stands in for the process context: the plans by name of the point, and all that happened, in order."""

    plans: dict[str, Plan]
    now: float = 0.0  # of the fake clock, in looks
    events: list[tuple[str, str, Slot]] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def names(self, event: str) -> list[str]:
        return [name for kind, name, _ in self.events if kind == event]


class FakeJob(Job):
    """A job whose process is a pipe: it has exited once the far end is closed."""

    def __init__(self, context: World, point: Point, slot: Slot, *, jobs: int) -> None:
        self.world, self.point, self.slot = context, point, slot
        self.plan, self.seen, self.code = context.plans[point.name], 0, None
        self.line, self.far_line = Pipe(duplex=False)
        sentinel, self.far_sentinel = Pipe(duplex=False)
        self.process = SimpleNamespace(sentinel=sentinel, is_alive=lambda: self.code is None)
        context.events.append(("start", point.name, slot))
        if self.plan.wakes:
            act = {"exit": self.exit, "send": lambda: self.far_line.send({"epoch": 1})}[self.plan.wakes]
            self.timer = threading.Timer(0.05, act)
            self.timer.start()

    def messages(self) -> list[dict]:
        self.seen += 1
        self.world.now += 1
        if self.seen <= len(self.plan.messages):
            self.far_line.send(self.plan.messages[self.seen - 1])
        if self.seen == 2 and self.plan.raises is not None:
            raise self.plan.raises
        if self.seen == 2 and self.plan.signals:
            signal.raise_signal(self.plan.signals)
        if self.seen >= self.plan.looks:
            self.exit()
        return super().messages()

    def exit(self, code: int | None = None, status: str | None = None) -> None:
        if self.code is None:
            self.write(status or self.plan.status)
            self.code = self.plan.code if code is None else code
            self.far_sentinel.close()

    def write(self, status: str) -> None:
        self.point.folder.mkdir(exist_ok=True)
        results = {"status": status, "best": {"monitor": "val/mae", "value": 4.0}}
        (self.point.folder / "results.json").write_text(json.dumps(results), encoding="utf-8")

    def signal(self, number: int) -> None:
        self.world.events.append((f"signal {number}", self.point.name, self.slot))
        if self.plan.obeys:
            self.exit(code=1, status="interrupted")

    def end(self) -> int:
        if self.plan.wakes:
            self.timer.join()
        killed = self.code is None
        self.world.events.append(("killed" if killed else "reaped", self.point.name, self.slot))
        for connection in (self.line, self.far_line, self.far_sentinel, self.process.sentinel):
            connection.close()
        self.code = -9 if killed else self.code
        return self.code


FAILS = Plan(code=1, status="failed")
LONG = 500  # looks: about a second, so that a queue that stops no job fails a test instead of hanging
HANGS = Plan(looks=LONG)


@pytest.fixture
def sweep(monkeypatch, tmp_path):
    """Return a function that makes a queue of fake jobs, its points, and the world that records them."""
    monkeypatch.setattr(queue, "Job", FakeJob)
    monkeypatch.setattr(queue, "POLL_S", 0.002)
    monkeypatch.setattr(queue, "GRACE_S", 0.02)

    def make(plans: dict[str, Plan], slots: list[Slot], *, timeout: float | None = None, fail_fast: bool = False):
        world = World(plans)
        board = Board(len(plans), at_once=len(slots), terminal=False)
        points = [Point(name, tmp_path / name, []) for name in plans]
        return Queue(world, slots, board, timeout=timeout, fail_fast=fail_fast), points, world

    return make


@pytest.fixture
def own_handlers():
    """Set the default handlers of SIGINT and SIGTERM, whatever the test process was started with."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def statuses(points: list[Point]) -> dict[str, str]:
    return {point.name: point.status for point in points}


def test_every_point_runs_once_and_in_order(sweep) -> None:
    queue_, points, world = sweep({name: Plan() for name in "abcde"}, [Slot(), Slot()])

    queue_.run(points)

    assert world.names("start") == list("abcde")
    assert statuses(points) == dict.fromkeys("abcde", "completed")
    assert sorted(world.names("reaped")) == list("abcde")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_as_many_jobs_run_at_once_as_there_are_slots(sweep, count) -> None:
    lengths = [5, 1, 3, 2, 4, 1, 6, 2, 3]
    plans = {f"p{i}": Plan(looks=length) for i, length in enumerate(lengths)}
    queue_, points, world = sweep(plans, [Slot((str(gpu),)) for gpu in range(count)])

    queue_.run(points)

    running, most = 0, 0
    for kind, _, _ in world.events:
        running += 1 if kind == "start" else -1
        most = max(most, running)
    assert most == count
    assert statuses(points) == dict.fromkeys(plans, "completed")


def test_a_gpu_goes_to_the_next_job_only_after_its_last_job_has_ended(sweep) -> None:
    lengths = [5, 1, 3, 2, 4, 1, 6, 2, 3]
    plans = {f"p{i}": Plan(looks=length, code=i % 2, status="failed") for i, length in enumerate(lengths)}
    slots = [Slot(("0", "1")), Slot(("2", "3")), Slot(("4", "5"))]
    queue_, points, world = sweep(plans, slots)

    queue_.run(points)

    held: dict[Slot, str] = {}
    for kind, name, slot in world.events:
        if kind == "start":
            assert slot not in held, f"{name} got {slot} while {held[slot]} had it"
            held[slot] = name
        else:
            assert held.pop(slot) == name
    used = [slot for kind, _, slot in world.events if kind == "start"]
    assert len(used) == 9
    assert set(used) == set(slots)


def test_a_failure_stops_no_other_point(sweep) -> None:
    queue_, points, _ = sweep({"a": FAILS, "b": Plan(looks=3), "c": Plan()}, [Slot(), Slot()])

    queue_.run(points)

    assert statuses(points) == {"a": "failed", "b": "completed", "c": "completed"}


def test_fail_fast_interrupts_the_running_jobs_and_drops_the_waiting_ones(sweep) -> None:
    plans = {"a": HANGS, "b": FAILS, "c": HANGS, "d": Plan(), "e": Plan()}
    queue_, points, world = sweep(plans, [Slot(), Slot(), Slot()], fail_fast=True)

    queue_.run(points)

    assert statuses(points) == {"a": "interrupted", "b": "failed", "c": "interrupted", "d": "waiting", "e": "waiting"}
    assert world.names("start") == ["a", "b", "c"]
    assert world.names(f"signal {signal.SIGINT}") == ["a", "c"]
    assert world.names("killed") == []


def test_fail_fast_without_a_failure_runs_every_point(sweep) -> None:
    queue_, points, _ = sweep({name: Plan() for name in "abc"}, [Slot()], fail_fast=True)

    queue_.run(points)

    assert statuses(points) == dict.fromkeys("abc", "completed")


def test_a_job_that_ignores_sigint_is_killed_after_the_grace_period(sweep) -> None:
    stubborn = Plan(looks=LONG, obeys=False)
    queue_, points, world = sweep({"a": stubborn, "b": FAILS}, [Slot(), Slot()], fail_fast=True)

    queue_.run(points)

    assert statuses(points) == {"a": "interrupted", "b": "failed"}
    assert world.names("killed") == ["a"]


def test_a_job_that_takes_too_long_is_killed_and_the_next_point_still_runs(sweep, monkeypatch) -> None:
    queue_, points, world = sweep({"a": HANGS, "b": Plan()}, [Slot()], timeout=5)
    monkeypatch.setattr(queue, "time", world)

    queue_.run(points)

    assert statuses(points) == {"a": "failed", "b": "completed"}
    assert points[0].error == "did not end within launcher.timeout=5 s"
    assert [event[:2] for event in world.events][1:] == [("killed", "a"), ("start", "b"), ("reaped", "b")]
    assert json.loads((points[0].folder / "results.json").read_text()) == {
        "status": "failed",
        "error": "did not end within launcher.timeout=5 s",
    }


def test_the_time_limit_is_for_each_job_from_its_own_start(sweep, monkeypatch) -> None:
    queue_, points, world = sweep({name: Plan(looks=4) for name in "abc"}, [Slot()], timeout=5)
    monkeypatch.setattr(queue, "time", world)

    queue_.run(points)

    assert statuses(points) == dict.fromkeys("abc", "completed")
    assert [point.seconds for point in points] == [4, 4, 4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_marks_the_running_jobs_interrupted_and_ends_the_sweep(sweep, own_handlers, caplog, number) -> None:
    plans = {"a": Plan(looks=50, signals=number), "b": HANGS, "c": Plan()}
    queue_, points, world = sweep(plans, [Slot(), Slot()])

    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt), handle_signals():
        queue_.run(points)

    assert statuses(points) == {"a": "interrupted", "b": "interrupted", "c": "waiting"}
    assert world.names(f"signal {signal.SIGINT}") == ["a", "b"]
    assert world.names("killed") == []
    assert any(message.startswith("stopping") for message in caplog.messages)
    assert queue_.running == {}


def test_an_error_in_the_loop_leaves_no_job_running(sweep) -> None:
    plans = {"a": Plan(looks=LONG, raises=RuntimeError("a mistake")), "b": HANGS}
    queue_, points, world = sweep(plans, [Slot(), Slot()])

    with pytest.raises(RuntimeError, match="a mistake"):
        queue_.run(points)

    assert sorted(world.names("killed")) == ["a", "b"]
    assert statuses(points) == {"a": "interrupted", "b": "interrupted"}


def test_progress_up_to_the_last_message_reaches_the_board(sweep, caplog) -> None:
    sent = tuple({"epoch": i, "epochs": 3, "images_per_s": 10.0 * i, "epoch_ended": True} for i in (1, 2, 3))
    queue_, points, _ = sweep({"a": Plan(looks=3, messages=sent), "b": Plan(looks=2)}, [Slot(("0",)), Slot(("1",))])

    with caplog.at_level(logging.INFO):
        queue_.run(points)

    assert [message for message in caplog.messages if message.startswith("a ")] == [
        "a  epoch 1/3  10 img/s",
        "a  epoch 2/3  20 img/s",
        "a  epoch 3/3  30 img/s",
    ]
    assert "[1/2] a starts on GPU 0" in caplog.messages
    assert "[2/2] b starts on GPU 1" in caplog.messages
    assert any(message.startswith("[2/2] a completed after") for message in caplog.messages)


def test_a_point_that_was_complete_before_is_reported_as_such(sweep, caplog) -> None:
    queue_, points, _ = sweep({"a": Plan(), "b": Plan()}, [Slot()])
    points[0].folder.mkdir()
    (points[0].folder / "results.json").write_text('{"status": "completed"}', encoding="utf-8")

    with caplog.at_level(logging.INFO):
        queue_.run(points)

    ends = [re.split(r":| \d", message)[0] for message in caplog.messages if "complete" in message]
    assert ends == ["[1/2] a was already complete", "[2/2] b completed after"]


@pytest.mark.parametrize(("event", "looks"), [("exit", LONG), ("send", 1)])
def test_an_exit_and_a_message_wake_the_queue_at_once(sweep, monkeypatch, event, looks) -> None:
    queue_, points, _ = sweep({"a": Plan(wakes=event, looks=looks)}, [Slot()])
    monkeypatch.setattr(queue, "POLL_S", 4.0)
    begin = time.monotonic()

    queue_.run(points)

    assert time.monotonic() - begin < 2
    assert statuses(points) == {"a": "completed"}
