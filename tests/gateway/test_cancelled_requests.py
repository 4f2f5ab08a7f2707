"""A request that is cancelled leaves nothing behind, at whichever of its checkpoints that is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat
from tests.support.cancelling import cancel_at_each_step
from tests.support.fakes import FakeClient
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.http.opener import AddressOpener
from trio_gateway.engine.http.transport import PlainTransport
from trio_gateway.server.dumps import DumpRecord, DumpWriter
from trio_gateway.server.http.types import Message, Scope

LIMIT = 10**6
KEY = "a-key-for-tests-0123456789"
ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n' + DONE
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nxyz\r\n--b--\r\n'
)


class Case(NamedTuple):
    path: str
    body: bytes
    script: Iterable[bytes | float]
    kind: bytes = b"application/json"


CASES = {
    "a chat": Case(CHAT, chat(), [ANSWER]),
    "a stream": Case(CHAT, chat(stream=True), [EVENT, EVENT, LAST]),
    "a stream that pauses": Case(CHAT, chat(stream=True), [EVENT, 1.0, EVENT, 1.0, LAST]),
    "a stream that waits": Case(CHAT, chat(stream=True), [40.0, EVENT, LAST]),
    "a stream of Ollama": Case("/api/chat", chat(), [EVENT, LAST]),
    "one that waits": Case("/api/chat", chat(), [40.0, EVENT, LAST]),
    "an answer of Ollama": Case("/api/chat", chat(stream=False), [ANSWER]),
    "a bad request": Case(CHAT, b"{}", []),
    "a form": Case("/v1/audio/translations", FORM, [ANSWER], b"multipart/form-data; boundary=b"),
}


class Records:
    """The dumps that were begun and not handed in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open: list[str] = []
        begin = DumpWriter.begin

        def note_begin(writer: DumpWriter, request_id: str, *rest: Any) -> DumpRecord:
            self.open.append(request_id)
            return begin(writer, request_id, *rest)

        monkeypatch.setattr(DumpWriter, "begin", note_begin)
        monkeypatch.setattr(DumpWriter, "submit", lambda _, r: self.open.remove(r.request_id))


def left_of(stack: Stack, records: Records) -> dict[str, Any]:
    """What is still held, though no request is under way."""
    gateway, engines = stack.gateway, stack.manager.overview.engines()
    clients = [engine.client for engine in stack.manager.overview._engines.values()]
    return {
        "leases": [e.leases for e in engines if e.leases],
        "waiting": stack.manager.overview.tickets(),
        "exchanges": [e for e in stack.engines.exchanges if e.closed_at is None],
        "answering": [c for c in clients if c.connections.is_answering],
        "open": [len(c.connections) for c in clients if len(c.connections)],
        "uploads": [*gateway._uploads._open],
        "under way": [n for n in gateway.front.guard._under_way.values() if n],  # type: ignore[attr-defined]
        "dumps": [*records.open],
        "bytes": [n for n in gateway.budget.facts().values() if n and n < LIMIT],
    }


def nothing(left: dict[str, Any]) -> bool:
    return not any(left.values())


def call(stack: Stack, case: Case, sent: list[Message]) -> Callable[[], Any]:
    """The ASGI call of a client that sends all and then waits."""

    async def run() -> None:
        scope: Scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": case.path,
            "raw_path": case.path.encode(), "query_string": b"", "scheme": "http",
            "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
            "headers": [
                (b"host", b"gateway"), (b"authorization", b"Bearer " + KEY.encode()),
                (b"content-type", case.kind), (b"content-length", b"%d" % len(case.body)),
            ],
        }  # fmt: skip
        pieces = [case.body[:9], case.body[9:]]
        sent.clear()

        async def receive() -> Message:
            if not pieces:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        await stack.gateway(scope, receive, send)

    return run


def given(tmp_path: Path) -> Any:
    keys = (ApiKey(name="k", secret=KEY, max_parallel=1, admin=True),)
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=keys)
    return config(model("m"), access=access, dumps_dir=tmp_path, max_buffered_bytes=LIMIT)


@pytest.mark.parametrize("name", CASES)
async def test_of_a_cancelled_request_nothing_is_left(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    case, records = CASES[name], Records(monkeypatch)
    sent: list[Message] = []
    async with running_stack(given(tmp_path)) as stack:
        stack.engines.kind.endpoints |= {"audio/translations"}
        monkeypatch.setattr(stack.engines, "next_script", lambda: iter(case.script))

        def check(step: int) -> None:
            assert nothing(left_of(stack, records)), (step, left_of(stack, records))

        assert await cancel_at_each_step(call(stack, case, sent), check) > 3
        assert sent[-1]["type"] == "http.response.body"
        assert not sent[-1].get("more_body")


async def engine_on(stream: trio.SocketStream, kind: bytes, body: bytes) -> None:
    """An engine that has one answer, which comes in two parts."""
    async with stream:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (more := await stream.receive_some()):
                return
            received += more
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        try:
            await stream.send_all(head % (kind, len(body)) + body[:20])
            await trio.lowlevel.checkpoint()
            await stream.send_all(body[20:])
        except trio.BrokenResourceError:
            return


@pytest.mark.parametrize("how", ["plain", "streamed"])
async def test_of_a_cancelled_request_no_connection_to_the_engine_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    kind = b"text/event-stream" if how == "streamed" else b"application/json"
    body = EVENT + LAST if how == "streamed" else ANSWER
    records, sent = Records(monkeypatch), list[Message]()

    async def connect(_: AddressOpener) -> PlainTransport:
        await trio.lowlevel.checkpoint()
        ours, engines = socket.socketpair()
        engine = trio.SocketStream(trio.socket.from_stdlib_socket(engines))
        nursery.start_soon(engine_on, engine, kind, body)
        return PlainTransport(ours)

    monkeypatch.setattr(AddressOpener, "connect", connect)
    monkeypatch.setattr(FakeClient, "forward_request", EngineClient.forward_request)
    async with trio.open_nursery() as nursery, running_stack(given(tmp_path)) as stack:
        stack.engines.load_s = 0.0
        case = Case(CHAT, chat(stream=how == "streamed"), [])

        def check(step: int) -> None:
            assert nothing(left_of(stack, records)), (step, left_of(stack, records))

        assert await cancel_at_each_step(call(stack, case, sent), check) > 7
        assert b"".join(m.get("body", b"") for m in sent) == body
