"""Kept connections to the real engine: each takes one of its few threads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import trio
import trio.testing

from tests.support.harness import free_port
from tests.support.patience import patient
from trio_gateway.config.schema import EngineTimeouts
from trio_gateway.engine.clients.embedded_server import END_LIMIT_S
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine
from trio_gateway.engine.health import HealthRecord

SLOTS = 2
CHAT = "/v1/chat/completions"
STOP_S = END_LIMIT_S / 2  # an idle one takes 0.2 s


def body(**fields: object) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


async def ask(client: LlamaCppEngine, given: bytes) -> int:
    async with client.forward_request("POST", CHAT, [], given) as exchange:
        while await exchange.receive():
            pass
        return exchange.status


@asynccontextmanager
async def engine(gguf: Path) -> AsyncIterator[tuple[LlamaCppEngine, trio.Process]]:
    port = free_port()
    program = [sys.executable, "-m", "trio_gateway.engine.clients.embedded_server"]
    args = ["-m", str(gguf), "-c", "2048", "-np", str(SLOTS), "-t", "1", "--port", str(port)]
    client = LlamaCppEngine(f"http://127.0.0.1:{port}")
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, [*program, *args], stderr=subprocess.DEVNULL, check=False)
        process = await nursery.start(run)
        try:
            with trio.fail_after(patient(30)):
                await HealthRecord("it", client, EngineTimeouts).until_good()
            await client.read_facts(5)
            yield client, process
        finally:
            process.kill()
            await client.aclose()


def connections(process: trio.Process) -> int:
    """How many the engine has."""
    found = psutil.Process(process.pid).net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED for each in found)


async def test_requests_and_questions_get_through_while_all_are_kept(tiny: Path) -> None:
    async with engine(tiny) as (client, process):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(SLOTS):
                    nursery.start_soon(ask, client, body(max_tokens=2))
                for _ in range(4):
                    nursery.start_soon(client.count_tokens, "chat/completions", body(), 5)
        assert len(client.idle) == connections(process) == SLOTS
        other = LlamaCppEngine(client.base_url)  # over a connection of its own
        with trio.fail_after(patient(5)):
            assert (await other.check_health(5)).ok
            assert (await client.check_health(5)).ok
            assert await client.read_slots(5) is not None
            assert await ask(client, body(max_tokens=2, stream=True)) == 200
        await other.aclose()
        assert len(client.idle) == SLOTS


async def test_a_request_that_is_cancelled_over_a_kept_connection_stops_generating(
    tiny: Path,
) -> None:
    async with engine(tiny) as (client, _):
        assert await ask(client, body(max_tokens=2)) == 200
        assert len(client.idle) == 1
        with trio.fail_after(patient(10)):
            given = body(stream=True, ignore_eos=True)
            async with client.forward_request("POST", CHAT, [], given) as exchange:
                assert not len(client.idle)
                assert await exchange.receive()
                assert await busy(client)
            while await busy(client):
                await trio.testing.wait_all_tasks_blocked(0.02)


async def busy(client: LlamaCppEngine) -> bool:
    answer = await client.ask("GET", "/slots", 5)
    assert answer is not None
    return any(slot["is_processing"] for slot in answer.value)


async def test_an_engine_stops_at_once_while_connections_are_kept(tiny: Path) -> None:
    async with engine(tiny) as (client, process):
        async with trio.open_nursery() as nursery:
            for _ in range(SLOTS):
                nursery.start_soon(ask, client, body(max_tokens=2))
        assert len(client.idle) == SLOTS
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await process.wait()
        assert time.monotonic() - begun < patient(STOP_S)
        assert process.returncode == 0
