"""`stop_command` with real processes: before SIGTERM, in time, never fatal."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.support.asking import CHAT, chat
from tests.support.fakes import FakeEngines
from tests.support.harness import FAKE_ENGINE
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack
from trio_gateway.config.schema import EngineTimeouts, GatewayConfig
from trio_gateway.engine.manager import EngineManager

pytestmark = pytest.mark.processes

SH = "/bin/sh"


class RealProcesses(FakeEngines):
    def manager(self, given: GatewayConfig) -> EngineManager:
        return EngineManager(given)


@asynccontextmanager
async def gateway(
    tmp_path: Path, script: str, *args: str, stop_s: float = 5.0, **fields: Any
) -> AsyncIterator[Stack]:
    """A gateway with a model on the fake engine that is stopped with a shell script."""
    engine = variant(
        4096, binary=sys.executable, args=(str(FAKE_ENGINE), *args), workdir=tmp_path,
        stop_command=(SH, "-c", script), timeouts=EngineTimeouts(stop_s=stop_s), **fields,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        stack = Stack(nursery, RealProcesses(), config(model("m", engine)))
        await nursery.start(stack.gateway.run)
        async with stack.http:
            yield stack
        stack.gateway.end_now("the test is over")
        nursery.cancel_scope.cancel(reason="the test is over")


async def shut_down(stack: Stack) -> float:
    """How long it took."""
    begun = trio.current_time()
    stack.gateway.begin_shutdown()
    await stack.manager.stopped.wait()
    return trio.current_time() - begun


def is_gone(pid: int) -> bool:
    """Or a zombie: nobody's child stays one where there is no init."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def until_gone(pid: int) -> None:
    """A signal that was sent takes effect when the process gets the processor."""
    with trio.fail_after(5):
        while not is_gone(pid):  # noqa: ASYNC110
            await trio.sleep(0.02)


async def test_it_runs_before_sigterm_with_pid_and_port_filled_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script = 'kill -0 ${PID} && echo "${PID} ${PORT} $NAME" > stopped; kill -9 ${PID}'
    # Only the command can end this one before SIGKILL does, after 20 s.
    async with gateway(
        tmp_path, script, "--ignore-sigterm", stop_s=20.0, env={"NAME": "box-${PORT}"}
    ) as stack:
        await stack.post(CHAT, chat("m"))
        (engine,) = stack.manager.engines.values()
        assert await shut_down(stack) < 10.0
    text = f"{engine.pid} {engine.launch.port} box-{engine.launch.port}\n"
    assert (tmp_path / "stopped").read_text() == text
    assert "stop_command /bin/sh is done" in caplog.text


async def test_one_that_fails_is_told_of_and_the_engine_ends_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with gateway(tmp_path, "echo no such box; exit 3") as stack:
        await stack.post(CHAT, chat("m"))
        await shut_down(stack)
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert warning.getMessage() == "stop_command /bin/sh exited with code 3\nno such box"
    assert any(r.getMessage().endswith("| no such box") for r in caplog.records)


async def test_one_that_is_not_there_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SH", "/no/such/program")
    async with gateway(tmp_path, "") as stack:
        await stack.post(CHAT, chat("m"))
        await shut_down(stack)
    assert "stop_command: /no/such/program" in caplog.text


async def test_one_that_hangs_is_killed_with_its_children_inside_the_engines_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = "sleep 60 & echo $! > child; sleep 60"
    async with gateway(tmp_path, script, stop_s=2.0) as stack:
        await stack.post(CHAT, chat("m"))
        assert await shut_down(stack) < 10.0  # 1.6 s, and the engine's own; the sleeps take 60 s
        await until_gone(int((tmp_path / "child").read_text()))
    assert "did not end within 1.6 s" in caplog.text


async def test_it_runs_for_an_engine_that_did_not_start(tmp_path: Path) -> None:
    async with gateway(tmp_path, "echo x > stopped", "--exit-at-start", "3") as stack:
        answer = await stack.post(CHAT, chat("m"))
        assert (answer.status, b"exited with code 3" in answer.content) == (502, True)
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize(("script", "runs"), [("", True), (": ${PID}", False)])
async def test_it_runs_after_a_crash_unless_it_needs_the_process(
    tmp_path: Path, script: str, runs: bool
) -> None:
    """The number of a process that is gone may be another's by now."""
    script = f"{script}\necho x >> stopped"
    async with gateway(tmp_path, script, "--crash-after", "0") as stack:
        answer = await stack.post(CHAT, chat("m"))
        assert answer.status == 502
    assert (tmp_path / "stopped").exists() == runs


async def test_a_gateway_that_ends_at_once_does_not_wait_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path, "echo x > stopped") as stack:
        await stack.post(CHAT, chat("m"))
        stack.gateway.end_now("a second signal")
        await stack.manager.stopped.wait()
    assert not (tmp_path / "stopped").exists()
    assert "killed at once, not by its stop_command" in caplog.text


# What `docker run` does: the process is a client, and the server is somebody else's child.
CLIENT = """
(setsid "$@" >/dev/null 2>&1 & echo $! > server.pid)
trap "exit 0" TERM
while kill -0 $(cat server.pid) 2>/dev/null; do sleep 0.05; done
"""


async def test_a_server_that_is_not_the_engines_child_is_used_and_ended(tmp_path: Path) -> None:
    server = (sys.executable, str(FAKE_ENGINE), "--port", "${PORT}")
    client = variant(
        4096, binary=SH, args=("-c", CLIENT, "client", *server), workdir=tmp_path,
        stop_command=(SH, "-c", "kill $(cat server.pid)"), timeouts=EngineTimeouts(stop_s=10.0),
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        stack = Stack(nursery, RealProcesses(), config(model("m", client)))
        await nursery.start(stack.gateway.run)
        async with stack.http:
            assert (await stack.post(CHAT, chat("m"))).status == 200
        pid = int((tmp_path / "server.pid").read_text())
        assert psutil.pid_exists(pid)
        await shut_down(stack)
        nursery.cancel_scope.cancel(reason="the test is over")
    await until_gone(pid)
