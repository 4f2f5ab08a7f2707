"""Which requests are answered without Quart, and that no request can be answered in both ways."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, Clock
from trio_gateway.bus import Bus
from trio_gateway.server.access.permissions import EVERYTHING, PERMISSIONS_KEY
from trio_gateway.server.api.endpoint import Endpoint, Need
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.call import NOBODY, Call
from trio_gateway.server.handlers.requests import DirectAnswers, Dispatcher, methods_of
from trio_gateway.server.handlers.routes import quart_app
from trio_gateway.server.http.scopes import RequestScopes, TornStream
from trio_gateway.server.http.types import AsgiApp, ClientGone, Message, Scope
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.relay.answer import Answer, AnswerStream

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
DIRECT = [row for row in ENDPOINTS if row.is_direct]
PATHS = [path for row in ENDPOINTS for path in row.paths]


class Handlers:
    """Every row's handler: it notes the row and gives what it is told to."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.seen: list[str] = []
        self.answers: list[Answer | Exception] = [*answers]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("handle_"):
            raise AttributeError(name)
        return self.handle

    async def handle(self, endpoint: Endpoint, call: Call) -> Answer:
        self.seen.append(endpoint.name)
        answer = self.answers.pop(0) if self.answers else Answer(200, [], b"")
        if isinstance(answer, Exception):
            raise answer
        return answer


class Pieces(AnswerStream):
    """A stream of these pieces; with an exception among them, it breaks off there."""

    has_events = True

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = [*pieces]
        self.is_closed = False

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def aclose(self) -> None:
        self.is_closed = True


async def messages_of(
    app: AsgiApp,
    method: str = "POST",
    path: str = CHAT,
    headers: Sequence[Any] = (),
    root_path: str = "",
) -> list[Message]:
    """What the app sends as its answer."""
    scope: Scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "scheme": "http", "root_path": root_path,
        "headers": [*headers], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        PERMISSIONS_KEY: EVERYTHING,
    }  # fmt: skip
    asked = False
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await trio.sleep_forever()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await RequestScopes(app)(scope, receive, send)
    return sent


def direct(handlers: Handlers, closing: trio.Event | None = None) -> AsgiApp:
    async def others(*_: object) -> None:
        raise AssertionError("it was left to Quart")

    closing = trio.Event() if closing is None else closing
    return DirectAnswers(Dispatcher(closing, RequestBook(Bus()), handlers), NOBODY, others)


# -- which way ------------------------------------------------------------------------------------


def test_what_an_engine_answers_at_a_fixed_path_is_answered_directly() -> None:
    engines = {row.name for row in ENDPOINTS if row.need is not Need.NO_ENGINE}
    with_values = {row.name for row in ENDPOINTS if any("{" in path for path in row.paths)}
    own_streams = {"events", "logs", "yield"}
    assert {row.name for row in DIRECT} == (engines | own_streams) - with_values
    assert {"chat/completions", "messages", "api/chat", "audio/translations", "props"} <= {
        row.name for row in DIRECT
    }


def test_all_that_streams_is_answered_directly() -> None:
    """Only there an answer can begin before there is one (`early_answer`)."""
    assert {row.name for row in ENDPOINTS if row.streams} <= {row.name for row in DIRECT}


async def test_a_request_has_one_way_and_no_other(autojump_clock: Clock) -> None:
    """Quart alone answers none of the direct rows, whatever the method; and the layer before it
    answers nothing else."""
    by_quart, directly = Handlers(), Handlers()
    dispatched = Dispatcher(trio.Event(), RequestBook(Bus()), by_quart)
    quart = quart_app(trio.Event(), lambda: dispatched, NOBODY)

    async def nowhere(_: Scope, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 999, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    layer = DirectAnswers(Dispatcher(trio.Event(), RequestBook(Bus()), directly), NOBODY, nowhere)
    for path in PATHS:
        concrete = path.replace("{model}", "m").replace("{rest}", "m/x").replace("{digest}", "d")
        for method in METHODS:
            by_quart.seen, directly.seen = [], []
            await messages_of(quart, method, concrete)
            (start, *_) = await messages_of(layer, method, concrete)
            assert (start["status"] == 999) is (not directly.seen)
            assert not (by_quart.seen and directly.seen), (method, path)
            takes = [r for r in ENDPOINTS if path in r.paths and method in methods_of(r)]
            if takes:
                (row,) = takes
                assert (directly.seen, by_quart.seen) == (
                    ([row.name], []) if row.is_direct else ([], [row.name])
                )


@pytest.mark.parametrize("path", [f"{CHAT}/", CHAT.upper(), CHAT[1:], f"/x/..{CHAT}", f"/{CHAT}"])
async def test_another_spelling_of_a_direct_path_leads_to_no_handler(path: str) -> None:
    handlers = Handlers()
    dispatcher = Dispatcher(trio.Event(), RequestBook(Bus()), handlers)
    app = DirectAnswers(dispatcher, NOBODY, quart_app(trio.Event(), lambda: dispatcher, NOBODY))
    start, _ = (await messages_of(app, path=path))[:2]
    assert start["status"] == 404
    assert not handlers.seen


@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/gateway/engines")])
async def test_a_root_path_makes_no_other_path_of_it(method: str, path: str) -> None:
    """The guard goes by the path that the client wrote, so nobody may go by less of it."""
    handlers = Handlers()
    dispatcher = Dispatcher(trio.Event(), RequestBook(Bus()), handlers)
    app = DirectAnswers(dispatcher, NOBODY, quart_app(trio.Event(), lambda: dispatcher, NOBODY))
    start, _ = (await messages_of(app, method, f"/x{path}", root_path="/x"))[:2]
    assert start["status"] == 404
    assert not handlers.seen


# -- answers --------------------------------------------------------------------------------------


def of(kind: str, messages: list[Message]) -> list[Message]:
    return [m for m in messages if m["type"] == f"http.response.{kind}"]


async def test_a_whole_answer_says_how_long_it_is() -> None:
    answer = Answer(200, [(b"content-type", b"text/plain")], b"hello")
    messages = await messages_of(direct(Handlers(answer)))
    (start,) = of("start", messages)
    assert start["headers"][:2] == [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    assert b"".join(m["body"] for m in of("body", messages)) == b"hello"
    assert not messages[-1].get("more_body")


async def test_a_length_is_said_once_and_is_true() -> None:
    answer = Answer(200, [(b"content-length", b"7")], b"{}")
    (start,) = of("start", await messages_of(direct(Handlers(answer))))
    assert [h for h in start["headers"] if h[0] == b"content-length"] == [(b"content-length", b"2")]


async def test_a_stream_is_one_message_for_each_piece() -> None:
    stream = Pieces(b"a", b"bc")
    messages = await messages_of(direct(Handlers(Answer(200, [], stream))))
    assert [(m["body"], m["more_body"]) for m in of("body", messages)] == [
        (b"a", True), (b"bc", True), (b"", False),
    ]  # fmt: skip
    assert stream.is_closed


async def test_a_stream_s_end_goes_with_its_last_piece_if_it_is_known_by_then() -> None:
    class Known(Pieces):
        async def __anext__(self) -> bytes:
            piece = await super().__anext__()
            self.is_over = not self._pieces
            return piece

    messages = await messages_of(direct(Handlers(Answer(200, [], Known(b"a", b"b")))))
    last = [(m["body"], m["more_body"]) for m in of("body", messages) if m["body"]][-1]
    assert last[0] == b"b"
    assert not messages[-1]["more_body"]


async def test_a_torn_stream_has_no_end() -> None:
    stream = Pieces(b"a", TornStream("the engine is gone"))
    messages = await messages_of(direct(Handlers(Answer(200, [], stream))))
    assert [(m["body"], m["more_body"]) for m in of("body", messages)] == [(b"a", True)]
    assert stream.is_closed


async def test_a_stream_that_fails_of_a_bug_has_no_end() -> None:
    stream = Pieces(b"a", KeyError("x"))
    with pytest.raises((KeyError, ExceptionGroup)):
        await messages_of(direct(Handlers(Answer(200, [], stream))))
    assert stream.is_closed


# -- errors: as Quart's views give them -----------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ApiError(418, "no", code="teapot", headers=[("X-More", "1")], retry_after_s=3), 418),
        (ZeroDivisionError("secret"), 500),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat"])
async def test_an_error_is_the_same_in_both_ways(
    error: Exception, status: int, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other way is that of a row of the same family that Quart answers."""
    handlers = Handlers(error, error)
    dispatcher = Dispatcher(trio.Event(), RequestBook(Bus()), handlers)
    other = {CHAT: "/health", "/v1/messages": "/v1/models", "/api/chat": "/api/tags"}[path]
    headers = [(b"anthropic-version", b"x")] if path == "/v1/messages" else []
    mine = await messages_of(direct(handlers), path=path, headers=headers)
    quarts = await messages_of(
        quart_app(trio.Event(), lambda: dispatcher, NOBODY), "GET", other, headers=headers
    )
    assert mine[0]["status"] == quarts[0]["status"] == status
    assert without_id(mine[0]) == without_id(quarts[0])
    bodies = [b"".join(m["body"] for m in of("body", way)) for way in (mine, quarts)]
    assert bodies[0] == bodies[1]
    assert b"secret" not in bodies[0]
    if status == 500:
        assert caplog.text.count("a bug in the gateway; please report it") == 2


def without_id(start: Message) -> set[tuple[bytes, bytes]]:
    return {(n, v) for n, v in start["headers"] if n != b"x-gateway-request-id"}


@pytest.mark.parametrize("error", [ClientGone("gone"), TornStream("torn")])
async def test_what_cannot_go_on_is_not_answered_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that begins early may fail while its handler still waits."""
    sent: list[Message] = []
    with contextlib.suppress(ClientGone):  # it goes on to the connection
        sent = await messages_of(direct(Handlers(error)))
    assert sent == []
    assert "a bug" not in caplog.text


async def test_while_the_gateway_closes_no_handler_is_called() -> None:
    closing, handlers = trio.Event(), Handlers()
    closing.set()
    start, body = (await messages_of(direct(handlers, closing)))[:2]
    assert start["status"] == 503
    assert json.loads(body["body"])["error"]["code"] == "shutting_down"
    assert not handlers.seen
