"""A WebSocket to an engine that says very much in very small parts."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from tests.support.turns import longest_wait_s
from trio_gateway.engine.errors import EngineTalksGarbage
from trio_gateway.engine.http.exchange import Pulse
from trio_gateway.engine.http.socket import EngineSocket, SocketClosed
from trio_gateway.engine.http.transport import Transport

READ_BYTES = 65536
FRAGMENTS = 100_000
MAX_BYTES = 1_000_000


class Wire:
    """An engine's end: it accepts, then says these bytes."""

    def __init__(self, said: bytes) -> None:
        self._engine = WSConnection(ConnectionType.SERVER)
        self._said = said
        self._first = b""
        self.heard = b""

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if not self._first:
            self._engine.receive_data(data)
            (event,) = self._engine.events()
            assert isinstance(event, Request)
            self._first = self._engine.send(AcceptConnection())
        else:
            self.heard += data

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        data = self._first + self._said[: READ_BYTES - len(self._first)]
        self._said = self._said[len(data) - len(self._first) :]
        self._first = b""
        return data

    def close(self) -> None:
        pass


def fragments(kind: int, part: bytes, count: int) -> bytes:
    size = bytes([len(part)])
    return bytes([kind]) + size + part + (b"\0" + size + part) * (count - 2) + b"\x80" + size + part


async def opened(said: bytes) -> EngineSocket:
    socket = EngineSocket(cast(Transport, Wire(said)), Pulse(), MAX_BYTES)
    await socket.open("engine", "/", [], [])
    return socket


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize(
    ("kind", "part", "whole"),
    [
        (2, b"x", b"x" * FRAGMENTS), (1, b"x", "x" * FRAGMENTS), (1, b"", ""), (2, b"", b""),
    ],
    ids=["bytes", "text", "empty text", "nothing"],
)  # fmt: skip
async def test_a_message_of_very_many_fragments_costs_others_little(
    kind: int, part: bytes, whole: str | bytes
) -> None:
    socket = await opened(fragments(kind, part, FRAGMENTS))
    heard: list[str | bytes] = []

    async def hear() -> None:
        heard.append(await socket.receive())

    assert await longest_wait_s(hear) < 0.02
    assert heard == [whole]


async def test_very_many_messages_cost_others_little() -> None:
    socket = await opened(b"\x82\x01x" * 20_000)

    async def hear() -> None:
        for _ in range(20_000):
            assert await socket.receive() == b"x"

    assert await longest_wait_s(hear) < 0.02


async def test_a_message_that_grows_too_large_in_small_parts_ends_it() -> None:
    socket = await opened(fragments(2, b"x" * 100, MAX_BYTES // 100 + 10))
    with pytest.raises(SocketClosed) as closed:
        await socket.receive()
    assert closed.value.code == 1009


async def test_one_message_after_the_other_is_whole() -> None:
    socket = await opened(fragments(1, b"a", 5) + fragments(2, b"b", 5) + fragments(1, b"c", 2))
    assert [await socket.receive() for _ in range(3)] == ["aaaaa", b"bbbbb", "cc"]


async def test_what_comes_before_nonsense_is_heard() -> None:
    socket = await opened(fragments(1, b"a", 5) + b"\xff\xff\xff")
    assert await socket.receive() == "aaaaa"
    with pytest.raises(EngineTalksGarbage):
        await socket.receive()
