"""SIGINT and SIGTERM at every point, through both commands: the right exit code, nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from tests.support.harness import (
    HYPERCORN,
    SERVE,
    WAIT_S,
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    running_gateway,
    started,
)
from tests.support.patience import patient

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

GRACE_S = 0.5
STOP_S = 2.0
BOUND_S = GRACE_S + STOP_S + 1.0
COMMANDS = ["serve", "hypercorn"]
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def config() -> str:
    return configuration(
        fake_model("fast"),
        fake_model("other"),
        fake_model("slow", "--interval-s", "0.2"),
        fake_model("loads-long", "--load-s", "60"),
        fake_model("stops-long", "--stop-s", "0.3"),
        shutdown_grace=str(GRACE_S),
        stream_keepalive="0.5",  # a stream that waits for a slot has a first byte, too
        engine_stop_timeout=str(STOP_S),
    )


@contextmanager
def gateway_of(command: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    if command == "serve":
        with running_gateway(tmp_path, config()) as gateway:
            yield gateway
        return
    settings = tmp_path / "hypercorn.toml"
    settings.write_text('bind = ["127.0.0.1:0"]\nworker_class = "trio"\ngraceful_timeout = 1.0\n')
    argv = [*HYPERCORN, "-c", str(settings), "trio_gateway.app:app"]
    ready = r"Running on (http://\S+)"
    with running_gateway(tmp_path, config(), command=argv, ready=ready) as gateway:
        yield gateway


def end(gateway: GatewayProcess, number: signal.Signals, *, times: int = 1) -> None:
    """Signal, and hold what happens against the promise."""
    begun, bound_s = time.monotonic(), patient(BOUND_S)
    for _ in range(times):
        gateway.send_signal(number)
    assert gateway.wait() == 0
    assert time.monotonic() - begun < bound_s
    gateway.assert_nothing_left()


def in_background(gateway: GatewayProcess, model: str) -> threading.Thread:
    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):  # `hypercorn` may close it without a word
            gateway.chat(model)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_while_an_engine_is_idle(command: str, number: signal.Signals, tmp_path: Path) -> None:
    with gateway_of(command, tmp_path) as gateway:
        assert gateway.chat("fast").status_code == 200
        assert len(gateway.engines()) == 1
        end(gateway, number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_during_a_start_while_requests_queue(
    command: str, number: signal.Signals, tmp_path: Path
) -> None:
    with gateway_of(command, tmp_path) as gateway:
        waiting = [in_background(gateway, name) for name in ("loads-long", "loads-long", "fast")]
        gateway.wait_for_line("loads-long:4096: starting at")
        end(gateway, number)
        for thread in waiting:
            thread.join()


@pytest.mark.parametrize("command", COMMANDS)
def test_during_a_swap(command: str, tmp_path: Path) -> None:
    with gateway_of(command, tmp_path) as gateway:
        assert gateway.chat("stops-long").status_code == 200
        waiting = in_background(gateway, "fast")
        gateway.wait_for_line("stops-long:4096: stopping, swap to fast")
        end(gateway, signal.SIGTERM)
        waiting.join()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("command", COMMANDS)
async def test_with_fifty_streams_running(command: str, times: int, tmp_path: Path) -> None:
    with gateway_of(command, tmp_path) as gateway:
        await trio.to_thread.run_sync(gateway.chat, "slow")
        endings: list[bytes] = []
        running = [trio.Event() for _ in range(50)]

        async def read(client: httpx.AsyncClient, index: int) -> None:
            body = chat_body("slow", stream=True, max_tokens=3000)
            last = b""
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                try:
                    async for piece in response.aiter_raw():
                        running[index].set()
                        last = piece
                except httpx.HTTPError as error:
                    last = repr(error).encode()
            endings.append(last)

        async with gateway.async_client() as client, trio.open_nursery() as nursery:
            for index in range(50):
                nursery.start_soon(read, client, index)
            for event in running:
                await event.wait()
            await trio.to_thread.run_sync(lambda: end(gateway, signal.SIGTERM, times=times))
    assert len(endings) == 50
    # Each stream ends with a word, never as if it were complete.
    assert all(b'{"error":' in ending and b"[DONE]" not in ending for ending in endings)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_an_engine_that_ignores_the_first(
    number: signal.Signals, tmp_path: Path
) -> None:
    text = configuration(fake_model("stubborn", "--ignore-sigterm"), engine_stop_timeout="60")
    with running_gateway(tmp_path, text) as gateway:
        assert gateway.chat("stubborn").status_code == 200
        gateway.send_signal(number)
        gateway.wait_for_line("stubborn:4096: stopping")
        begun = time.monotonic()
        end(gateway, number)
        assert time.monotonic() - begun < patient(2)
        assert "killed in" in gateway.log


def test_a_signal_right_after_the_start_ends_it_in_order(tmp_path: Path) -> None:
    file = tmp_path / "gateway.lua"
    file.write_text(config())
    with started([*SERVE, str(file)]) as process:
        assert process.stdout is not None
        assert "trio-gateway" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(WAIT_S) in (0, 130)  # it may have got ready in the meantime


# -- the hypercorn command only --------------------------------------------------------------


def worker_of(gateway: GatewayProcess) -> int:
    return next(p.pid for p in gateway.descendants() if "spawn_main" in " ".join(p.cmdline()))


@pytest.mark.parametrize("to", ["child", "group"])
def test_hypercorn_a_sigterm_to_the_child_or_the_group_ends_all_in_order(
    to: str, tmp_path: Path
) -> None:
    with gateway_of("hypercorn", tmp_path) as gateway:
        assert gateway.chat("fast").status_code == 200
        worker = worker_of(gateway)
        if to == "child":
            os.kill(worker, signal.SIGTERM)
        else:
            os.killpg(gateway.process.pid, signal.SIGTERM)
        gateway.wait()
        gateway.assert_nothing_left()
        assert "stopped in" in gateway.log  # in order, and not by the reaper


def test_hypercorn_a_killed_parent_takes_its_child_and_engines_along(tmp_path: Path) -> None:
    with gateway_of("hypercorn", tmp_path) as gateway:
        assert gateway.chat("fast").status_code == 200
        gateway.process.kill()
        gateway.assert_nothing_left(within_s=5)
        gateway.wait()


def test_hypercorn_more_than_one_worker_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.lua"
    file.write_text(config())
    done = subprocess.run(
        [*HYPERCORN, "-k", "trio", "-w", "2", "-b", "127.0.0.1:0", "trio_gateway.app:app"],
        env={**os.environ, "TRIO_GATEWAY_CONFIG": str(file)},
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    # hypercorn 0.18 exits with 0 all the same: it forgets the failed worker's exit code.
    assert "run hypercorn with one worker" in done.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_hypercorn_without_a_child_ends_in_order_too(
    number: signal.Signals, tmp_path: Path
) -> None:
    argv = [*HYPERCORN, "-k", "trio", "-w", "0", "-b", "127.0.0.1:0", "trio_gateway.app:app"]
    ready = r"Running on (http://\S+)"
    with running_gateway(tmp_path, config(), command=argv, ready=ready) as gateway:
        assert gateway.chat("fast").status_code == 200
        gateway.send_signal(number)
        assert gateway.wait() == 0
        assert "stopped in" in gateway.log
