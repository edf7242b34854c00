"""The process of a point, forked from the test process, with a small function in place of the training."""

import contextlib
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from agebench.build import module as build
from agebench.errors import UserError
from agebench.sweep import job
from agebench.sweep.job import Job, check_points, count_gpus, kill_group
from agebench.sweep.point import CONSOLE, Point
from agebench.sweep.session import current_job
from agebench.sweep.slots import Slot

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.fixture
def context():
    """Return the context that forks processes in milliseconds; they inherit the patches of a test."""
    return multiprocessing.get_context("fork")


@pytest.fixture
def start(context, monkeypatch, tmp_path):
    """Return a function that starts a job whose training is a function of the job's progress line."""
    started = []

    def make(training, *arguments: str, slot: Slot = Slot()) -> Job:  # noqa: B008  # frozen
        monkeypatch.setattr(runpy, "run_module", lambda name, **options: training(current_job().progress))
        started.append(Job(context, Point("p", tmp_path / "p", list(arguments)), slot, jobs=1))
        return started[-1]

    yield make
    for each in started:
        each.end()


def wait_for(holds, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def is_gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def send_and_hang(progress) -> None:
    """Start a process, send its id, and hang."""
    child = subprocess.Popen(["sleep", "60"])
    progress.send({"child": child.pid})
    time.sleep(60)


def test_kill_group_ends_a_process_and_its_child() -> None:
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    child = int(leader.stdout.readline())

    kill_group(leader.pid)

    assert leader.wait(10) == -signal.SIGKILL
    assert wait_for(lambda: is_gone(child))
    leader.stdout.close()


def test_kill_group_of_a_process_that_is_gone_does_nothing() -> None:
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()

    kill_group(process.pid)


def test_interrupts_are_ignored_for_a_while() -> None:
    before = signal.getsignal(signal.SIGINT)

    with job._ignore_interrupts():
        inside = signal.getsignal(signal.SIGINT)

    assert inside is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("available", "jobs", "ranks", "expected"),
    [(8, 2, 1, 4), (8, 3, 1, 2), (8, 2, 2, 2), (8, 1, 4, 2), (2, 4, 1, 1), (1, 1, 1, 1)],
)
def test_jobs_and_their_ranks_share_the_threads(monkeypatch, available, jobs, ranks, expected) -> None:
    for name in THREADS:
        monkeypatch.setenv(name, "77")
    threads = torch.get_num_threads()
    torch.set_num_threads(available)

    try:
        job._share_cpu(jobs, ranks)

        assert torch.get_num_threads() == expected
        assert [os.environ[name] for name in THREADS] == [str(expected)] * 3
    finally:
        torch.set_num_threads(threads)


def config_of(compose_config, *overrides: str):
    return compose_config("data=digits", "data.limit=200", *overrides)


def test_points_whose_parts_fit_pass(context, compose_config) -> None:
    configs = [config_of(compose_config, f"optim.lr={rate}") for rate in (0.1, 0.01)]

    check_points(context, configs)


def test_a_wrong_point_found_in_another_process_is_one_user_error(context, compose_config) -> None:
    configs = [config_of(compose_config), config_of(compose_config, "data.target=age")]

    with pytest.raises(UserError, match=r"data\.target=age") as caught:
        check_points(context, configs)

    assert "\n" not in str(caught.value)


def test_each_kind_of_point_is_checked_once(context, compose_config, monkeypatch, tmp_path) -> None:
    checked = tmp_path / "checked"

    def record(config) -> None:
        with checked.open("a") as lines:
            lines.write(f"{config.head._target_.rpartition('.')[2]} {config.data.limit}\n")

    monkeypatch.setattr(build, "check_parts", record)
    lines = [
        ("head=softmax", "seed=0"),
        ("head=softmax", "seed=1"),  # the same kind with another seed
        ("head=softmax", "optim.lr=0.5"),  # the same kind with another learning rate
        ("head=corn", "seed=0"),
        ("head=corn", "data.limit=100"),
        ("head=corn", "seed=5"),
    ]

    check_points(context, [config_of(compose_config, *line) for line in lines])

    assert checked.read_text().splitlines() == ["Softmax 200", "CORN 200", "CORN 100"]


def test_a_check_whose_process_dies_raises_nothing(context, compose_config, monkeypatch) -> None:
    monkeypatch.setattr(build, "check_parts", lambda config: os._exit(3))

    check_points(context, [config_of(compose_config)])


@pytest.mark.parametrize(("available", "expected"), [(True, 3), (False, 0)])
def test_gpus_are_counted_in_another_process(context, monkeypatch, available, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    assert count_gpus(context) == expected


def test_no_gpu_is_counted_by_a_process_that_dies(context, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: os._exit(1))

    assert count_gpus(context) == 0


def test_a_job_is_a_train_command_with_the_environment_of_its_slot_and_its_own_group(start, monkeypatch) -> None:
    def training(progress) -> None:
        gpus, own, group = os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid(), os.getpgid(0)
        progress.send({"argv": sys.argv, "gpus": gpus, "own": own, "group": group, "other": os.environ["OTHER"]})

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("OTHER", "kept")
    started = start(training, "optim.lr=0.1", "seed=3", slot=Slot(("2", "3")))
    started.process.join(10)

    (message,) = started.messages()

    assert message == {
        "argv": ["agebench-train", "optim.lr=0.1", "seed=3"],
        "gpus": "2,3",
        "own": started.process.pid,
        "group": started.process.pid,
        "other": "kept",
    }
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    assert os.getpgid(0) != started.process.pid


def test_the_output_of_a_job_and_its_children_is_in_its_console_log(start, tmp_path) -> None:
    def training(progress) -> None:
        print("from the job")
        print("an error", file=sys.stderr)
        subprocess.run(["echo", "from its child"], check=True)

    started = start(training)
    started.process.join(10)

    assert (tmp_path / "p" / CONSOLE).read_text().splitlines() == ["from the job", "an error", "from its child"]


def test_messages_are_those_since_the_last_call_and_end_with_the_job(start) -> None:
    def training(progress) -> None:
        progress.send({"epoch": 1})
        progress.send({"epoch": 2})
        signal.sigwait([signal.SIGUSR1])
        progress.send({"epoch": 3})

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # inherited, so that none is early
    try:
        started = start(training)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    first: list[dict] = []
    wait_for(lambda: first.extend(started.messages()) or len(first) == 2)
    between = started.messages()
    started.signal(signal.SIGUSR1)
    started.process.join(10)

    last, closed = started.messages(), started.line.closed

    assert first == [{"epoch": 1}, {"epoch": 2}]
    assert between == []
    assert last == [{"epoch": 3}]
    assert closed
    assert started.messages() == []


def test_a_killed_job_has_the_signal_as_its_exit_code_and_its_child_is_gone(start) -> None:
    started = start(send_and_hang)
    (message,) = wait_for(started.messages)

    code = started.end()

    assert code == -signal.SIGKILL
    assert wait_for(lambda: is_gone(message["child"]))
    assert started.line.closed


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (2, 2), (None, 0)])
def test_a_job_that_exits_keeps_its_exit_code(start, code, expected) -> None:
    started = start(lambda progress: sys.exit(code))
    started.process.join(10)

    assert started.end() == expected


def test_the_children_of_a_job_are_killed_at_its_end(start) -> None:
    def training(progress) -> None:
        progress.send({"child": subprocess.Popen(["sleep", "60"]).pid})

    started = start(training)
    started.process.join(10)
    (message,) = started.messages()
    left = not is_gone(message["child"])

    code = started.end()

    assert left
    assert code == 0
    assert wait_for(lambda: is_gone(message["child"]))


def test_sigint_reaches_a_job_of_a_sweep_that_ignores_it(start, tmp_path) -> None:
    def training(progress) -> None:
        try:
            progress.send({"ready": True})
            time.sleep(60)
        except KeyboardInterrupt:
            (tmp_path / "interrupted").touch()

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        started = start(training)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(started.messages)

    started.signal(signal.SIGINT)
    started.process.join(10)

    assert (tmp_path / "interrupted").exists()
    started.signal(signal.SIGINT)  # a signal to a job that has ended is no error


def test_a_job_and_its_child_die_with_the_process_that_started_it(context, start, tmp_path) -> None:
    def sweep() -> None:
        started = start(send_and_hang)
        (message,) = wait_for(started.messages)
        part = tmp_path / "part"
        part.write_text(json.dumps([started.process.pid, message["child"]]))
        part.rename(tmp_path / "pids")
        time.sleep(60)

    process = context.Process(target=sweep)
    process.start()
    assert wait_for((tmp_path / "pids").exists)
    pids = json.loads((tmp_path / "pids").read_text())
    running = [not is_gone(pid) for pid in pids]

    process.kill()
    process.join()

    assert running == [True, True]
    assert wait_for(lambda: all(map(is_gone, pids)))
