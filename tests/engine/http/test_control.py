"""The gateway's own questions to an engine, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support.sockets import HOST, OK, Handler, chunked, read_request, serving
from trio_gateway.engine.errors import (
    EngineDisconnected,
    EngineLost,
    EngineSilent,
    EngineTalksGarbage,
    EngineUnreachable,
)
from trio_gateway.engine.http import control as control_module
from trio_gateway.engine.http.connections import Connections
from trio_gateway.engine.http.control import Answer, ControlClient
from trio_gateway.engine.http.opener import AddressOpener

TIMEOUT_S = 10.0
HELLO = OK + b'Content-Length: 9\r\n\r\n{"a": 12}'


class World:
    """A server that sends the same bytes to each question, and a client for it."""

    def __init__(self, port: int) -> None:
        self.connections = Connections()
        opener = AddressOpener(HOST, port)
        self.control = ControlClient(opener, self.connections, [(b"X-Api-Key", b"secret")])

    async def ask(self, timeout_s: float = TIMEOUT_S) -> Answer:
        return await self.control.request("GET", "/x", timeout_s)


@asynccontextmanager
async def asked(handler: Handler) -> AsyncIterator[World]:
    async with serving(handler) as port:
        world = World(port)
        yield world
        world.connections.abort_all(EngineDisconnected("the test is over"))


def sending(*pieces: bytes) -> Handler:
    async def handle(stream: trio.SocketStream) -> None:
        await read_request(stream)
        for piece in pieces:
            await stream.send_all(piece)

    return handle


async def test_a_question_is_sent_as_given_with_the_engine_s_key() -> None:
    heads: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        heads.append(await read_request(stream))
        await stream.send_all(HELLO)

    async with asked(handle) as world:
        for _ in range(2):
            await world.ask()
        await world.control.request("POST", "/y?z=1", TIMEOUT_S, b'{"b":1}')
    first, second, post = [head.lower() for head in heads]
    assert first == second
    assert first.startswith(b"get /x http/1.1\r\n")
    for line in (b"host: 127.0.0.1:", b"x-api-key: secret", b"accept-encoding: identity"):
        assert line in first
    assert post.startswith(b"post /y?z=1 http/1.1\r\n")
    assert post.endswith(b'\r\n\r\n{"b":1}')


@pytest.mark.parametrize("target", ["/a/../b?c=%zz", "//host:port/x", "/{id}[1]", "/x#y"])
async def test_a_path_is_asked_for_as_it_is_configured(target: str) -> None:
    heads: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        heads.append(await read_request(stream))
        await stream.send_all(HELLO)

    async with asked(handle) as world:
        await world.control.request("GET", target, TIMEOUT_S)
    assert heads[0].split()[1].decode() == target


@pytest.mark.parametrize(
    "answer",
    [HELLO, OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b'{"a":', b" 12}", b"")],
    ids=["with a length", "in chunks"],
)
async def test_an_answer_is_read_whole_and_its_connection_is_closed(answer: bytes) -> None:
    async with asked(sending(answer)) as world:
        got = await world.ask()
        assert (got.status, got.value) == (200, {"a": 12})
        assert world.connections.pulse.beats > 0
        assert len(world.connections) == 0


async def test_only_a_200_has_a_value() -> None:
    refused = b"HTTP/1.1 503 So\r\nContent-Length: 2\r\n\r\n{}"
    async with asked(sending(refused)) as world:
        got = await world.ask()
        assert (got.status, got.body, got.value) == (503, b"{}", None)
    async with asked(sending(OK + b"Content-Length: 2\r\n\r\nno")) as world:
        assert (await world.ask()).value is None


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((), EngineDisconnected),
        ((b"SSH-2.0-OpenSSH\r\n",), EngineTalksGarbage),
        ((OK + b"Content-Length: 9\r\n\r\n{",), EngineDisconnected),
    ],
    ids=["nothing", "not HTTP", "half an answer"],
)
async def test_what_is_no_answer_is_an_error(
    pieces: tuple[bytes, ...], error: type[EngineLost]
) -> None:
    async with asked(sending(*pieces)) as world:
        with pytest.raises(error):
            await world.ask()
        assert await world.control.ask("GET", "/x", TIMEOUT_S) is None
        assert len(world.connections) == 0


async def test_an_address_that_nobody_listens_at_is_unreachable() -> None:
    world = World(1)
    with pytest.raises(EngineUnreachable, match="nothing answers"):
        await world.ask()


async def hang(stream: trio.SocketStream) -> None:
    await stream.send_all(OK)
    await trio.sleep_forever()


async def test_a_question_has_one_deadline_for_all_of_it() -> None:
    async with asked(hang) as world:
        with pytest.raises(EngineSilent, match=r"no answer within 0\.05 s"):
            await world.ask(0.05)
        assert len(world.connections) == 0


async def test_questions_end_with_everything_else_that_is_open() -> None:
    async with asked(hang) as world, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def question() -> None:
            with pytest.raises(EngineDisconnected, match="it hangs"):
                await world.ask()

        await trio.testing.wait_all_tasks_blocked()
        world.connections.abort_all(EngineDisconnected("it hangs"))


async def test_after_the_end_no_question_is_asked() -> None:
    async with asked(sending(HELLO)) as world:
        await world.ask()
        world.connections.abort_all(EngineDisconnected("it crashed"))
        with pytest.raises(EngineDisconnected):
            await world.ask()
        assert await world.control.ask("GET", "/x", TIMEOUT_S) is None


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "ANSWER_MAX_BYTES", 8)
    async with asked(sending(HELLO)) as world:
        with pytest.raises(EngineTalksGarbage, match="over 8 bytes"):
            await world.ask()


async def test_an_answer_is_not_unpacked() -> None:
    """It was not asked for, and a small one might unpack to any size."""
    packed = OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
    async with asked(sending(packed)) as world:
        assert (await world.ask()).body == b"{}"


async def test_a_cancelled_question_closes_its_connection() -> None:
    async with asked(hang) as world:
        with trio.move_on_after(0.05):
            await world.ask()
        assert len(world.connections) == 0
