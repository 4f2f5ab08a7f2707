"""How many modules of ours a chat passes through until its engine gets the first byte.

Counted where it can be seen: at the moment when the request is written to the engine, on the stack
of the request's task, from the ASGI call on. Four modules are given the whole request and have
returned by then. docs/architecture.md lists both.
"""

from __future__ import annotations

import re
import socket
import sys
from types import CodeType, FrameType

import pytest
import trio

from tests.support.asking import DONE, EVENT, chat, stream
from tests.support.fakes import FakeClient
from tests.support.house import PAGE
from tests.support.schema_values import config, model
from tests.support.stack import running_stack
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.http.opener import AddressOpener
from trio_gateway.engine.http.transport import PlainTransport
from trio_gateway.server.gateway import Gateway

MODULES_MAX = 12
HAVE_RETURNED = {
    "server.http.upload",
    "server.api.request_body",
    "server.relay.prepare",
    "models.model_selector",
}
IN_PLACE_OF_CONTEXTLIB = {"held"}  # as little of the request's way as that is
ASGI_CALL = Gateway.__call__.__code__
ANSWERS = {
    "plain": (b"application/json", b"{}"),
    "streamed": (b"text/event-stream", EVENT + DONE),
}


def frames_of(task: trio.lowlevel.Task) -> list[FrameType]:
    """The outermost first."""
    if task is not trio.lowlevel.current_task():
        return [frame for frame, _ in task.iter_await_frames()]
    # It runs: what awaits it is what called it, and below that are trio's loop and pytest.
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found[::-1]


def modules_on_the_way() -> list[str]:
    """Called by a task of the request."""
    root = trio.lowlevel.current_task()
    while not any(frame.f_code is ASGI_CALL for frame in frames_of(root)):
        assert root.parent_nursery is not None
        root = root.parent_nursery.parent_task
    frames = frames_of(root)
    codes: list[CodeType] = [frame.f_code for frame in frames]
    names = [frame.f_globals["__name__"] for frame in frames[codes.index(ASGI_CALL) :]]
    ours = [name for name in names if name.startswith("trio_gateway.")]
    return [*dict.fromkeys(name.removeprefix("trio_gateway.") for name in ours)]


def listed() -> list[str]:
    """The table of docs/architecture.md."""
    text = PAGE.read_text(encoding="utf-8")
    way = text.partition("## A request's way")[2].partition("## Other ways")[0]
    return re.findall(r"^\| `([\w.]+)` \|", way, re.MULTILINE)


async def answer(engine: trio.SocketStream, kind: bytes, body: bytes) -> None:
    """An engine that has one answer."""
    async with engine:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await engine.receive_some()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        await engine.send_all(head % (kind, len(body)) + body)


@pytest.mark.parametrize("how", ["plain", "streamed"])
async def test_a_chat_passes_through_few_modules(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    seen: list[list[str]] = []

    class Watched(PlainTransport):
        async def send(self, data: bytes) -> None:
            seen.append(modules_on_the_way())
            await super().send(data)

    async def connect(_: AddressOpener) -> PlainTransport:
        ours, engines = socket.socketpair()
        engine = trio.SocketStream(trio.socket.from_stdlib_socket(engines))
        nursery.start_soon(answer, engine, *ANSWERS[how])
        return Watched(ours)

    monkeypatch.setattr(AddressOpener, "connect", connect)
    monkeypatch.setattr(FakeClient, "forward_request", EngineClient.forward_request)
    async with trio.open_nursery() as nursery, running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 0.0
        answered = await stream(stack, chat(stream=how == "streamed"))
        assert answered == ANSWERS[how][1]
    (modules,) = seen
    assert modules[0] == "server.gateway"
    passed = ({*modules} | HAVE_RETURNED) - IN_PLACE_OF_CONTEXTLIB
    assert passed == {*listed()}
    assert len(passed) <= MODULES_MAX
