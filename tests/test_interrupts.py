"""Signals that end a command in order, and signals that are left alone."""

import os
import signal

import pytest

from agebench.interrupts import NAMES, handle_signals, postponed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")


@pytest.fixture(autouse=True)
def default_handlers(monkeypatch):
    """Start with the default handlers, whatever the test process was started with."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = {name: signal.signal(getattr(signal, name), signal.SIG_DFL) for name in NAMES}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_like_ctrl_c(name) -> None:
    with pytest.raises(KeyboardInterrupt), handle_signals():
        signal.raise_signal(getattr(signal, name))

    assert signal.getsignal(getattr(signal, name)) is signal.SIG_DFL


def test_a_second_signal_does_not_interrupt_the_shutdown() -> None:
    with handle_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)


def test_nohup_is_respected() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with handle_signals():
        signal.raise_signal(signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_slurm_keeps_the_signals_with_which_it_requeues(monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")

    with handle_signals():
        found = [signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGUSR1, signal.SIGTERM)]

    assert found == [True, False]


def test_a_forked_process_ends_at_the_signal() -> None:
    with handle_signals():
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


@pytest.mark.parametrize("name", ["SIGINT", *NAMES])
def test_a_postponed_signal_interrupts_after_the_work(name) -> None:
    done = []

    @postponed()
    def work() -> None:
        signal.raise_signal(getattr(signal, name))
        done.append("after the signal")

    with handle_signals(), pytest.raises(KeyboardInterrupt):
        work()

    assert done == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_postponed_signal_interrupts_also_if_the_work_fails() -> None:
    @postponed()
    def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        raise OSError("the disk is full")

    with handle_signals(), pytest.raises(KeyboardInterrupt):
        work()


def test_a_signal_that_is_ignored_stays_ignored_while_others_are_postponed() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with handle_signals(), postponed():
        signal.raise_signal(signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
