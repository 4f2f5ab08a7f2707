"""StopSignals in this process: real signals, and a loop that is told of them.

What they do to a gateway, at each moment: `integration/test_moments.py`.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from trio_gateway import stop_signals
from trio_gateway.stop_signals import SIGNALS, StopSignals, forget_dead_output, terminal_is_gone

INT, TERM, HUP = SIGNALS


class Exited(BaseException):
    """In the place of the process's end."""


class Told:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin_shutdown(self, why: str) -> None:
        self.calls.append(f"begin: {why}")

    def end_now(self, why: str) -> None:
        self.calls.append(f"now: {why}")


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[StopSignals]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    monkeypatch.setattr(atexit, "register", lambda function: None)
    monkeypatch.setattr(os, "_exit", exited)
    installed = StopSignals()
    installed.install()
    yield installed
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def closed_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signals, "terminal_is_gone", lambda: True)


def exited(code: int) -> None:
    raise Exited(code)


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_loop_a_signal_ends_the_process(
    number: signal.Signals,
    signals: StopSignals,
    capfd: pytest.CaptureFixture[str],
    closed_terminal: None,
) -> None:
    with pytest.raises(Exited) as ended:
        signal.raise_signal(number)
    assert ended.value.args == (128 + number,)
    assert capfd.readouterr().err == f"trio-gateway: stopped by {number.name}\n"


@pytest.mark.parametrize(
    ("sent", "calls"),
    [
        ([INT], ["begin: SIGINT"]),
        ([TERM, INT], ["begin: SIGTERM", "now: a second signal"]),
        ([HUP, HUP], ["begin: SIGHUP"]),  # a terminal that closes may tell it twice
        ([TERM, HUP], ["begin: SIGTERM"]),
        ([HUP, INT], ["begin: SIGHUP", "now: a second signal"]),
    ],
)
async def test_in_the_loop_the_first_begins_the_shutdown_and_the_second_hurries_it(
    sent: list[signal.Signals], calls: list[str], signals: StopSignals, closed_terminal: None
) -> None:
    told = Told()
    signals.attach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(signals.watch, told)
        for number in sent:
            signal.raise_signal(number)
        with trio.fail_after(5):
            while len(told.calls) < len(calls):
                await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert told.calls == calls
        nursery.cancel_scope.cancel(reason="all were told")


async def test_a_hangup_that_is_no_terminals_end_reloads_also_if_it_came_before_the_loop(
    signals: StopSignals,
) -> None:
    told, why = Told(), list[str]()

    async def reload(because: str) -> None:
        why.append(because)

    signal.raise_signal(HUP)
    signals.attach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(signals.watch, told)
        nursery.start_soon(signals.watch_reloads, reload)
        await trio.testing.wait_all_tasks_blocked()
        assert why == ["SIGHUP"]
        for _ in range(3):
            signal.raise_signal(HUP)
        with trio.fail_after(5):
            while len(why) < 2:
                await trio.testing.wait_all_tasks_blocked()
        assert (told.calls, signals.received, signals.exit_code) == ([], None, 0)
        nursery.cancel_scope.cancel(reason="all were told")


async def test_a_third_ends_it_whatever_the_loop_is_doing(signals: StopSignals) -> None:
    signals.attach()
    signal.raise_signal(INT)
    signal.raise_signal(INT)
    with pytest.raises(Exited) as ended:
        signal.raise_signal(INT)
    assert ended.value.args == (130,)


async def test_the_exit_code_says_whether_it_was_ready(signals: StopSignals) -> None:
    signals.attach()
    signal.raise_signal(TERM)
    signals.mark_ready()  # too late
    assert signals.exit_code == 143
    other = StopSignals()
    other.install()
    other.attach()
    other.mark_ready()
    signal.raise_signal(TERM)
    assert (other.exit_code, other.received) == (0, TERM)


def test_once_the_loop_is_over_a_signal_changes_nothing(signals: StopSignals) -> None:
    async def run() -> None:
        signals.attach()
        signals.mark_ready()

    trio.run(run)
    signal.raise_signal(INT)
    signal.raise_signal(TERM)
    assert signals.exit_code == 0


def test_what_was_ignored_is_handled_but_for_the_hangup_of_nohup(signals: StopSignals) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    StopSignals().install()
    assert signal.getsignal(HUP) is signal.SIG_IGN
    assert {signal.getsignal(INT), signal.getsignal(TERM)}.isdisjoint({signal.SIG_IGN})


def test_output_that_leads_somewhere_is_left_alone() -> None:
    before = [os.fstat(descriptor).st_ino for descriptor in (1, 2)]
    forget_dead_output()
    assert [os.fstat(descriptor).st_ino for descriptor in (1, 2)] == before
    assert not terminal_is_gone()
