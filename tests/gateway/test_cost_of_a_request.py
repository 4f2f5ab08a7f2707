"""What one request costs that no machine changes: calls, decodes and tasks, on a real socket.

The client keeps its connection, its engine is ready, and nobody else is there. A change of the
table below is deliberate: whoever adds a call, a decode or a task to a request's way says so here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, DONE, EVENT, chat
from tests.support.call_counts import CallCounter, Counts, counted_tasks
from tests.support.fakes import FakeEngines, FakeProcess
from tests.support.schema_values import config, model
from tests.support.sockets import OK, chunked, read_request, serving
from trio_gateway.config.engine_types import LLAMACPP
from trio_gateway.config.schema import ListenAddress
from trio_gateway.engine.clients.facts import EngineFacts, Health
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine, LlamaCppKind
from trio_gateway.engine.manager import EngineManager
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.gateway_server import GatewayServer

DECODER = msgspec.json.Decoder(int)
CHUNKS = 3  # of the streamed answer; each is read by the client before the engine sends the next

# One receive and one send on each of the two sockets, and one of each for each further chunk. The
# head goes out with the first piece of the body, the end of a stream with its last. Decoded are the
# body, once to find its members and once more, its model, and the usage in an answer of one piece.
COSTS = {
    "plain": Counts(
        receives=0, sends=2,  # ASGI's; a body that came with its head is taken without one
        socket_receives=2, socket_sends=2, connects=0,
        decodes=4, tasks=0,
    ),
    "streamed": Counts(
        receives=0, sends=1 + CHUNKS,
        socket_receives=1 + CHUNKS, socket_sends=1 + CHUNKS, connects=0,
        decodes=3, tasks=0,
    ),
}  # fmt: skip

ANSWER = (
    b'{"model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}'
)
PLAIN = OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
STREAM = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class LoopbackEngines(FakeEngines):
    """Processes that do not exist, but answer on their ports. `read`: the client has read the
    chunk that was sent last."""

    def __init__(self) -> None:
        super().__init__()
        self.load_s = 0.0
        self.read = trio.Event()

    @asynccontextmanager
    async def launch(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AsyncIterator[FakeProcess]:
        port = int(argv[argv.index("--port") + 1])
        launched = super().launch(argv, env=env, workdir=workdir, log=log)
        async with launched as process, AsyncExitStack() as stack:
            with counted_tasks(False):
                await stack.enter_async_context(serving(self._answer, port))
            yield process

    async def _answer(self, connection: trio.SocketStream) -> None:
        while request := await read_request(connection):
            if b'"stream": true' not in request:
                await connection.send_all(PLAIN)
                continue
            head = STREAM
            for _ in range(CHUNKS - 1):
                self.read = trio.Event()
                await connection.send_all(head + chunked(EVENT))
                head = b""
                await self.read.wait()
            await connection.send_all(chunked(DONE, b""))


async def healthy(_: LlamaCppEngine, timeout_s: float) -> Health:
    return Health(True, "as ever")


async def facts(_: LlamaCppEngine, timeout_s: float) -> EngineFacts:
    return EngineFacts(slots=2, context=4096)


def decode_in_each_way() -> None:
    json.loads("1")
    msgspec.json.decode(b"1")
    msgspec.json.decode("1", type=int)
    DECODER.decode(b"1")
    DECODER.decode_lines(b"1")


@asynccontextmanager
async def running_gateway(engines: LoopbackEngines) -> AsyncIterator[int]:
    """Its port."""
    given = config(model("m"), listen=(ListenAddress("127.0.0.1", 0),))
    manager = EngineManager(given, launch=engines.launch, kinds={LLAMACPP.value: LlamaCppKind()})
    gateway = Gateway(given, manager)
    async with trio.open_nursery() as nursery:
        with counted_tasks():
            (address,) = await nursery.start(GatewayServer(gateway).run)
        yield address.port
        nursery.cancel_scope.cancel(reason="the test is over")


class Client:
    """One kept connection."""

    def __init__(self, connection: trio.SocketStream, engines: LoopbackEngines) -> None:
        self._connection, self._engines = connection, engines

    async def ask(self, body: bytes) -> bytes:
        """The body of the answer, as it came."""
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        await self._connection.send_all(head % CHAT.encode() + length + body)
        received, events = b"", 0
        while not received.endswith((ANSWER, b"\r\n0\r\n\r\n")):
            received += await self._connection.receive_some()
            if received.count(EVENT) > events:
                events += 1
                self._engines.read.set()
        return received.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("how", COSTS)
async def test_a_request_costs_no_more_than_it_did(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaCppEngine, "check_health", healthy)
    monkeypatch.setattr(LlamaCppEngine, "read_facts", facts)
    counter, engines = CallCounter(), LoopbackEngines()
    monkeypatch.setattr(Gateway, "__call__", counter.watched(Gateway.__call__))
    body = chat(stream=how == "streamed")
    async with (
        running_gateway(engines) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as connection,
    ):
        client = Client(connection, engines)
        await client.ask(body)  # the engine is ready, and its connection kept
        await trio.testing.wait_all_tasks_blocked()
        with counter.running():
            await client.ask(body)
            await trio.testing.wait_all_tasks_blocked()
    assert counter.counts() == COSTS[how], "\n" + "\n".join(counter.story)


async def test_what_is_decoded_is_counted_however_that_is_done() -> None:
    counter = CallCounter()
    with counter.running():
        decode_in_each_way()
        with counted_tasks():
            decode_in_each_way()
    assert counter.counts().decodes == 5
