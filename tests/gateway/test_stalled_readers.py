"""A client that takes nothing more of its answer gives its engine back after `send_timeout`.

Over real sockets, where the systems on both sides take some of it ahead.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, chat
from tests.support.patience import patient
from tests.support.real_sockets import authority, served, tiny_window
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.engine.clients.facts import EngineFacts

SEND_TIMEOUT_S = 0.5
WORDS = json.dumps({"choices": [{"index": 0, "delta": {"content": "word " * 20_000}}]}).encode()
EVENT = b"data: " + WORDS + b"\n\n"
BIT = b"x" * 100_000
LIMITS = ConnectionLimits(send_timeout_s=SEND_TIMEOUT_S)


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def post(path: str, body: bytes, **headers: str) -> bytes:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


ANSWERS = {
    "a stream": (post(CHAT, chat(stream=True)), EVENT),
    "a stream of text": (post("/v1/completions", chat(stream=True, prompt="Hi")), EVENT),
    "a stream of Anthropic's": (post("/v1/messages", chat(stream=True)), EVENT),
    "a stream of responses": (post("/v1/responses", chat(stream=True, input="Hi")), EVENT),
    "a stream of Ollama's": (post("/api/chat", chat()), EVENT),
    "a stream of an HTTP/1.0 client's": (
        post(CHAT, chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0"), EVENT
    ),
    "an answer that is too long to be read whole": (post(CHAT, chat()), BIT),
    "another's page": (post("/upstream/m/x", b""), BIT),
}  # fmt: skip


@asynccontextmanager
async def gateway_of(piece: bytes) -> AsyncIterator[Stack]:
    async with running_stack(config(model("m"), limits=LIMITS)) as stack:
        stack.engines.load_s = stack.engines.stop_s = 0.0
        stack.engines.chunked = True
        stack.engines.kind.endpoints |= {"messages", "responses"}
        stack.engines.next_script = lambda: endless(piece)  # type: ignore[method-assign]
        yield stack


def leases(stack: Stack) -> int:
    return sum(engine.leases for engine in stack.manager.overview.engines())


async def until_leases(stack: Stack, count: int) -> None:
    with trio.fail_after(patient(10)):
        while leases(stack) != count:  # noqa: ASYNC110 - nobody is told
            await trio.sleep(0.01)


async def frees_its_engine(stack: Stack, client: Any, request: bytes) -> float:
    """How long the client held its engine, from the moment in which it took nothing more."""
    await client.send_all(request)
    assert (await client.receive_some(100)).startswith(b"HTTP/1.1 200 ")
    begun = trio.current_time()
    assert leases(stack) == 1
    await until_leases(stack, 0)
    return trio.current_time() - begun


@pytest.mark.parametrize(("request_", "piece"), ANSWERS.values(), ids=ANSWERS)
async def test_whatever_is_answered_the_engine_is_free_after_the_timeout(
    request_: bytes, piece: bytes
) -> None:
    async with gateway_of(piece) as stack, served(stack.gateway, LIMITS) as port:
        client = await tiny_window(port)
        took_s = await frees_its_engine(stack, client, request_)
        assert took_s + 0.1 >= SEND_TIMEOUT_S
        assert took_s < patient(4 * SEND_TIMEOUT_S)
        await trio.aclose_forcefully(client)


@pytest.mark.parametrize("way", ["TLS", "a socket file"])
async def test_however_the_client_is_connected(way: str, tmp_path: Path) -> None:
    ca = authority(way == "TLS")
    unix = tmp_path / "s" if way == "a socket file" else None
    async with (
        gateway_of(EVENT) as stack,
        served(stack.gateway, LIMITS, ca, unix=unix) as port,
    ):
        client = await tiny_window(port, ca, unix)
        took_s = await frees_its_engine(stack, client, post(CHAT, chat(stream=True)))
        assert took_s < patient(4 * SEND_TIMEOUT_S)
        await trio.aclose_forcefully(client)


async def test_the_next_client_gets_its_turn() -> None:
    """The one engine that the model may have was held by one that reads nothing."""
    async with gateway_of(EVENT) as stack, served(stack.gateway, LIMITS) as port:
        stack.engines.facts = EngineFacts(slots=1, context=None)
        stalled = await tiny_window(port)
        await stalled.send_all(post(CHAT, chat(stream=True)))
        await stalled.receive_some(100)
        other = await trio.open_tcp_stream("127.0.0.1", port)
        stack.engines.next_script = lambda: iter([b"{}"])  # type: ignore[method-assign]
        await other.send_all(post(CHAT, chat()))
        with trio.fail_after(patient(10)):
            assert (await other.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
        for client in (stalled, other):
            await trio.aclose_forcefully(client)


async def test_an_answer_that_is_read_whole_holds_no_engine_meanwhile() -> None:
    async with gateway_of(EVENT) as stack, served(stack.gateway, LIMITS) as port:
        pieces = [b'{"x":"', *[BIT] * 100, b'"}']
        stack.engines.next_script = lambda: iter(pieces)  # type: ignore[method-assign]
        client = await tiny_window(port)
        await client.send_all(post(CHAT, chat()))
        assert (await client.receive_some(100)).startswith(b"HTTP/1.1 200 ")
        assert leases(stack) == 0
        assert stack.gateway.budget.memory.held > 0
        with trio.fail_after(patient(10)):
            while stack.gateway.budget.memory.held:  # noqa: ASYNC110 - nobody is told
                await trio.sleep(0.01)
        await trio.aclose_forcefully(client)
