"""EngineProcess with real children."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import psutil
import pytest
import trio

from tests.support.harness import wait_until_gone
from trio_gateway.engine.process import groups
from trio_gateway.engine.process import process as engine_process
from trio_gateway.engine.process.process import (
    LINE_MAX_BYTES,
    RING_LINES,
    Ending,
    EngineProcess,
    EngineSpawnError,
    open_engine_process,
)
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.lines import ENGINE_LOGGERS

pytestmark = pytest.mark.processes

LOG = logging.getLogger(f"{ENGINE_LOGGERS}test:1")
WAIT = "; import time; time.sleep(60)"


class RecordingReaper:
    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def register(self, group: int, name: str = "") -> None:
        self.calls.append(("+", group))

    def unregister(self, group: int) -> None:
        self.calls.append(("-", group))


@asynccontextmanager
async def running(
    program: str, *, workdir: Path = Path("/"), **env: str
) -> AsyncIterator[tuple[EngineProcess, RecordingReaper]]:
    reaper = RecordingReaper()
    async with open_engine_process(
        [sys.executable, "-c", program],
        env=env,
        workdir=workdir,
        log=LOG,
        reaper=cast(Reaper, reaper),
    ) as process:
        yield process, reaper


async def until_line(process: EngineProcess, line: str) -> None:
    """Its output is another process's doing: asked for until it is there."""
    with trio.fail_after(10):
        while line not in process.last_lines():  # noqa: ASYNC110 - no event tells of a line
            await trio.sleep(0.005)


async def test_output_is_kept_in_order_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    program = (
        "import os, sys\n"
        "for i in range(3): print('out', i, flush=True); print('err', i, file=sys.stderr)\n"
        "print(os.environ['MARK'], os.getcwd(), flush=True)"
    )
    async with running(program, workdir=tmp_path, MARK="here") as (process, reaper):
        await process.exited.wait()
        await until_line(process, f"here {tmp_path}")
        lines = process.last_lines()
        assert lines[:6] == ["out 0", "err 0", "out 1", "err 1", "out 2", "err 2"]
        assert process.last_lines(1) == [f"here {tmp_path}"]
        assert "test:1 | out 0" in caplog.text
        assert (process.status, process.returncode) == ("exited with code 0", 0)
        assert repr(process) == f"<EngineProcess pid={process.pid} status='exited with code 0'>"
    assert reaper.calls == [("+", process.pid), ("-", process.pid)]


async def test_each_line_is_handed_on_as_it_is() -> None:
    kept = list[tuple[str, bytes]]()
    program = "print('\\x1b[31mred\\x1b[0m'); print('plain')"
    async with open_engine_process(
        [sys.executable, "-c", program],
        env={},
        workdir=Path("/"),
        log=LOG,
        reaper=cast(Reaper, RecordingReaper()),
        keep=lambda name, lines: kept.extend((name, line) for line in lines),
    ) as process:
        await process.exited.wait()
        await until_line(process, "plain")
        assert process.last_lines() == ["red", "plain"]
    assert kept == [("test:1", b"\x1b[31mred\x1b[0m"), ("test:1", b"plain")]


async def test_only_the_last_lines_are_kept_and_endless_ones_are_cut() -> None:
    program = "for i in range(1000): print(i)\nprint('x' * 10_000, end='', flush=True)" + WAIT
    async with running(program.replace("; import", "\nimport")) as (process, _):
        await until_line(process, "x" * LINE_MAX_BYTES)
        lines = process.last_lines()
        assert len(lines) == RING_LINES
        assert "999" in lines
        assert "0" not in lines
        await process.stop(5)
    # What came after the last newline is not lost.
    assert process.last_lines(1) == ["x" * (10_000 - 2 * LINE_MAX_BYTES)]


async def test_it_stops_on_sigterm() -> None:
    async with running("print('up', flush=True)" + WAIT) as (process, _):
        await until_line(process, "up")
        assert process.status == "running"
        report = await process.stop(5)
    assert report.ending is Ending.STOPPED
    assert report.took_s < 5
    assert process.status == f"was killed by signal {signal.SIGTERM}"


async def test_it_is_killed_when_it_ignores_sigterm() -> None:
    program = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
    )
    async with running(program + WAIT) as (process, _):
        await until_line(process, "up")
        report = await process.stop(0.05)
    assert report.ending is Ending.KILLED
    assert process.returncode == -signal.SIGKILL


async def test_a_stopped_process_need_not_be_killed() -> None:
    async with running("print('up', flush=True)" + WAIT) as (process, _):
        await until_line(process, "up")
        os.kill(process.pid, signal.SIGSTOP)
        assert (await process.stop(10)).ending is Ending.STOPPED


async def test_a_stopped_process_is_killed_without_being_woken_up() -> None:
    program = "import signal; signal.signal(signal.SIGCONT, lambda *_: print('woken', flush=True))"
    async with running(program + "; print('up', flush=True)" + WAIT) as (process, _):
        await until_line(process, "up")
        os.kill(process.pid, signal.SIGSTOP)
        assert (await process.kill()).ending is Ending.KILLED
    assert process.last_lines() == ["up"]


async def test_leaving_the_block_ends_the_process() -> None:
    async with running("print('up', flush=True)" + WAIT) as (process, reaper):
        await until_line(process, "up")
    assert process.returncode == -signal.SIGKILL
    assert reaper.calls[-1] == ("-", process.pid)


async def test_being_cancelled_ends_the_process_at_once() -> None:
    with trio.CancelScope() as scope:
        async with running("print('up', flush=True)" + WAIT) as (process, reaper):
            await until_line(process, "up")
            begun = trio.current_time()
            scope.cancel(reason="the test says so")
            await trio.sleep_forever()
    assert process.returncode == -signal.SIGKILL
    assert reaper.calls[-1] == ("-", process.pid)
    assert trio.current_time() - begun < 2


async def test_its_helpers_end_with_it() -> None:
    program = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(p.pid, flush=True)"
    )
    async with running(program) as (process, _):
        await process.exited.wait()
    helper = int(process.last_lines(1)[0])
    try:
        left = wait_until_gone([psutil.Process(helper)], within_s=1)
    except psutil.NoSuchProcess:
        left = []
    assert not left


async def test_one_outside_of_its_group_that_holds_the_pipe_is_not_waited_for() -> None:
    program = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],\n"
        "    start_new_session=True)\n"
        "print('escaped', p.pid, flush=True)"
    )
    begun = trio.current_time()
    async with running(program) as (process, _):
        await process.exited.wait()
    assert trio.current_time() - begun < engine_process.PUMP_LINGER_S + 5
    escaped = next(line for line in process.last_lines() if line.startswith("escaped"))
    os.kill(int(escaped.split()[1]), signal.SIGKILL)


@pytest.mark.parametrize(
    ("binary", "workdir", "words"),
    [
        ("/no/such/binary", "/", "does not exist"),
        ("no-such-command", "/", "is not on PATH"),
        ("/etc/passwd", "/", "not executable"),
        ("/", "/", "not executable"),
        ("/bin/sh", "/no/such/folder", "the folder /no/such/folder does not exist"),
    ],
)
async def test_what_cannot_run_is_an_error_that_says_why(
    binary: str, workdir: str, words: str
) -> None:
    reaper = cast(Reaper, RecordingReaper())
    with pytest.raises(EngineSpawnError, match=words):
        async with open_engine_process(
            [binary], env={}, workdir=Path(workdir), log=LOG, reaper=reaper
        ):
            pass


async def test_no_more_descriptors_is_such_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(groups, "spawn_in_group", exhausted)
    with pytest.raises(EngineSpawnError, match="Too many open files"):
        async with running("pass"):
            pass


async def test_a_process_that_cannot_be_killed_is_said_so_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = groups.kill_group
    monkeypatch.setattr(engine_process, "KILL_WAIT_S", 0.05)
    monkeypatch.setattr(groups, "kill_group", lambda group: True)
    async with running("print('up', flush=True)" + WAIT) as (process, _):
        await until_line(process, "up")
    assert "survived SIGKILL" in caplog.text
    real(process.pid)
    await process._process.wait()
