"""WebSocketRelay: a client's WebSocket, passed through to its model's engine.

Quart has no part in it. The lease lasts as long as the connection, and so keeps the engine from
being stopped for another model: a connection in which nothing is said is closed after a while.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec
import trio

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.errors import KEY_REFUSED, EngineLost, ExchangeAborted
from trio_gateway.engine.http.socket import (
    EngineSocket,
    HandshakeRefused,
    SocketClosed,
    reason_that_fits,
)
from trio_gateway.engine.lease import Lease
from trio_gateway.rawjson import decode_or_none
from trio_gateway.server.access.caller import caller_of
from trio_gateway.server.access.forwarded import id_in
from trio_gateway.server.access.permissions import Permissions, permissions_of
from trio_gateway.server.api.endpoints import REALTIME
from trio_gateway.server.api.errors import (
    ApiError,
    aborted,
    engine_failed,
    key_refused,
    shutting_down,
)
from trio_gateway.server.http.refusal import refusal_in
from trio_gateway.server.http.scopes import RequestState, cancelled
from trio_gateway.server.http.types import FIRST_KEY, REQUEST_KEY, Receive, Scope, Send
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import CANCELLED
from trio_gateway.server.relay.ask import Sender
from trio_gateway.server.relay.engine_answer import said_of
from trio_gateway.server.relay.engine_stream import news_of
from trio_gateway.server.relay.headers import choice_header, decision_headers
from trio_gateway.server.relay.model_finder import may_choose, refuse_choosers
from trio_gateway.server.relay.passage import headers_to
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay
from trio_gateway.tasks import beside, first_of

log = logging.getLogger(__name__)

T = TypeVar("T")

MESSAGE_MAX_BYTES = 16 * 1024**2
IDLE_S = 600.0

KEY_PROTOCOL = "openai-insecure-api-key."  # a browser has no other place for its key
# Of a message that is looked through; sound has none. Each part takes 1 to 3 µs of the event loop.
_COMMAS_MAX = 8_000
_TO_ENGINE = (b"openai-beta",)

_NORMAL, _GOING_AWAY, _POLICY, _BROKEN, _RESTART = 1000, 1001, 1008, 1011, 1012
_NO_CODE, _ABNORMAL = 1005, 1006
_SENDABLE = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})


class End(NamedTuple):
    """How a connection ended. `error`: what the gateway has to say about it."""

    code: int
    reason: str
    by_client: bool = False
    error: ApiError | None = None


# Raises ApiError for a client's message that may not go to the engine.
Check = Callable[[str | bytes], None]


class _Opened(NamedTuple):
    lease: Lease
    socket: EngineSocket
    check: Check


class WebSocketRelay:
    """An ASGI app for `websocket`."""

    def __init__(
        self, preparer: Preparer, relay: Relay, closing: trio.Event, book: RequestBook
    ) -> None:
        self._preparer, self._relay, self._closing = preparer, relay, closing
        self._book = book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        state: RequestState = scope[REQUEST_KEY]
        by, first = permissions_of(scope), scope[FIRST_KEY]
        as_id = None if by.person is None else id_in(first)
        self._book.begin(state.record, REALTIME, by.key, state.cancel, first, as_id)
        try:
            with trio.CancelScope() as state.scope:
                end = await self._serve(scope, state, receive, send)
            if state.scope.cancelled_caught:
                end = _cancelled(state)
            if end is None:
                return
        except ApiError as error:
            log.info("websocket %s: refused: %s", state.id, error.message)
            state.record.fails(error.code or error.error_type)
            await refusal_in(scope, error).send(scope, send)
        else:
            await _close(end, send)
            log.info("websocket %s: closed: %s %s", state.id, end.code, end.reason)

    async def _serve(
        self, scope: Scope, state: RequestState, receive: Receive, send: Send
    ) -> End | None:
        """How it ended; None if the client went away before it was answered. Raises ApiError."""
        async with AsyncExitStack() as stack:
            opened = await _while_connected(receive, lambda: self._open(scope, state, stack))
            if opened is None:
                return None
            lease, socket, check = opened
            headers = decision_headers(lease, permissions_of(scope).allows)
            if (chosen := state.record.chosen) is not None:
                headers.append(choice_header(chosen))
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": _subprotocol(scope, socket),
                    "headers": headers,
                }
            )
            state.record.first_byte_at = trio.current_time()
            end = await _pass(socket, lease, check, receive, send)
            if end.error is not None:
                state.record.fails(end.error.code or end.error.error_type)
            if end.by_client or end.error is None:
                await socket.say_close(_sendable(end.code), end.reason)
        return end

    async def _open(self, scope: Scope, state: RequestState, stack: AsyncExitStack) -> _Opened:
        """An engine that is gone gets a successor, once. Raises ApiError."""
        if self._closing.is_set():
            raise shutting_down()
        if scope["path"] not in REALTIME.paths:
            message = f"there is no WebSocket at this path; there is one at {REALTIME.paths[0]}"
            raise ApiError(404, message, code="unknown_path")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        named = [value for key, value in query if key == "model"]
        if len(named) > 1:
            message = "the address names two models (`?model=`); name one"
            raise ApiError(400, message, code="duplicate_model", param="model")
        name = named[0] if named else None
        state.record.asks(name)
        model = self._preparer.find(name, permissions_of(scope), REALTIME).model
        self._preparer.check_served(REALTIME, model)
        refuse_choosers(model, permissions_of(scope), dict(query))
        sender = Sender(state, caller_of(scope), [], permissions_of(scope))
        record, caller = state.record, sender.caller
        record.client, record.priority = caller.client, caller.priority
        path = REALTIME.engine_path
        assert path is not None
        for is_first in (True, False):
            lease = await stack.enter_async_context(
                self._relay.lease_any(sender, name or model.name, REALTIME)
            )
            query = [(k, lease.client.served_name or v if k == "model" else v) for k, v in query]
            target = f"{path}?{urlencode(query)}" if query else path
            headers = [(n, v) for n, v in scope["headers"] if n in _TO_ENGINE]
            if record.trace is not None:
                headers += record.trace.to_engine
            headers = headers_to(lease.client, msgspec.structs.replace(sender, headers=headers))
            record.sent_at = trio.current_time()
            try:
                socket = await stack.enter_async_context(
                    lease.client.open_socket(target, _for_engine(scope), headers, MESSAGE_MAX_BYTES)
                )
            except HandshakeRefused as refused:
                raise _refused_by(lease, refused) from None
            except ExchangeAborted as error:
                raise aborted(error) from None
            except EngineLost as error:
                lost = await news_of(lease, error)
                if not (is_first and lease.engine.gone.is_set()):
                    raise engine_failed(model.name, str(lost), lost.output) from None
            else:
                return _Opened(lease, socket, _check_of(model, permissions_of(scope)))
        raise AssertionError("the second try returns or raises")


def _check_of(model: ModelConfig, permissions: Permissions) -> Check:
    """A client's messages are not looked at, unless one may choose a model that its key may not
    use."""
    if not may_choose(model, permissions):
        return lambda message: None

    def check(message: str | bytes) -> None:
        commas = message.count(",") if isinstance(message, str) else message.count(b",")
        if commas > _COMMAS_MAX:
            what = f"a message has more than {_COMMAS_MAX} parts (commas)"
            raise ApiError(400, what, code="body_too_complex")
        values = decode_or_none(message)
        if not isinstance(values, dict):  # bytes as well: the site may find JSON in them
            raise ApiError(400, "a message is not a JSON object", code="invalid_json")
        refuse_choosers(model, permissions, values)

    return check


def with_key_as_header(scope: Scope) -> Scope:
    """A key that a browser's client hid among the subprotocols, where keys are looked for."""
    names = {name for name, _ in scope["headers"]}
    for protocol in scope.get("subprotocols", []):
        if protocol.startswith(KEY_PROTOCOL) and not names & {b"authorization", b"x-api-key"}:
            key = b"Bearer " + protocol.removeprefix(KEY_PROTOCOL).encode("latin-1", "replace")
            return {**scope, "headers": [*scope["headers"], (b"authorization", key)]}
    return scope


def _for_engine(scope: Scope) -> list[str]:
    return [p for p in scope.get("subprotocols", []) if not p.startswith(KEY_PROTOCOL)]


def _subprotocol(scope: Scope, socket: EngineSocket) -> str | None:
    """The engine's choice, or the endpoint's own: a browser insists on one of its list."""
    if socket.subprotocol is not None:
        return socket.subprotocol
    return REALTIME.name if REALTIME.name in _for_engine(scope) else None


def _refused_by(lease: Lease, refused: HandshakeRefused) -> ApiError:
    if refused.status in KEY_REFUSED:
        return key_refused(lease.engine.refusal(refused.status, said_of(refused.body)))
    model = lease.engine.key.model
    refusal = decode_or_none(refused.body, _Refusal)
    said = refusal.error.message if refusal is not None else ""
    message = f"the engine of {model} refused the WebSocket with status {refused.status}"
    if 400 <= refused.status < 500:
        return ApiError(refused.status, f"{message}: {said}" if said else message, code="refused")
    return engine_failed(model, f"{message}: {said}" if said else message)


class _RefusalError(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _RefusalError


class _ClientGone(Exception):
    """The client left before it was answered."""


async def _while_connected(receive: Receive, work: Callable[[], Awaitable[T]]) -> T | None:
    """What the work gives; None if the client went away before. Raises what the work raises."""

    async def watch() -> None:
        await receive()  # nothing else comes before the client was accepted
        raise _ClientGone

    try:
        async with beside(watch):
            return await work()
    except _ClientGone:
        return None


# -- an open connection ---------------------------------------------------------------------------


async def _pass(
    socket: EngineSocket, lease: Lease, check: Check, receive: Receive, send: Send
) -> End:
    """Pass messages on, both ways, until one side is gone or nothing is said for long."""
    idle = trio.CancelScope(deadline=trio.current_time() + IDLE_S)

    async def to_engine() -> End:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return End(message.get("code") or _NO_CODE, message.get("reason") or "", True)
            idle.deadline = trio.current_time() + IDLE_S
            text = message.get("text")
            said = message["bytes"] if text is None else text
            try:
                check(said)
                await socket.send(said)
            except ApiError as error:
                return End(_POLICY, error.message, error=error)
            except ExchangeAborted as error:
                return _aborted(error)

    async def to_client() -> End:
        while True:
            try:
                said = await socket.receive()
            except SocketClosed as closed:
                return End(closed.code, closed.reason)
            except ExchangeAborted as error:
                return _aborted(error)
            except EngineLost as error:
                lost = await news_of(lease, error)
                failure = engine_failed(lease.engine.key.model, str(lost), lost.output)
                return End(_BROKEN, failure.message, error=failure)
            idle.deadline = trio.current_time() + IDLE_S
            kind = "text" if isinstance(said, str) else "bytes"
            await send({"type": "websocket.send", kind: said})

    with idle:
        return await first_of(to_engine, to_client)
    return End(_GOING_AWAY, f"nothing was sent for {IDLE_S:g} s")


def _cancelled(state: RequestState) -> End:
    """Raises ApiError: it was not open yet."""
    error = cancelled()
    if state.record.first_byte_at is None:
        raise error
    state.record.fails(CANCELLED)
    return End(_POLICY, error.message, error=error)


def _aborted(error: ExchangeAborted) -> End:
    failure = aborted(error)
    return End(_RESTART, failure.message, error=failure)


def _sendable(code: int) -> int:
    """What may be sent in a close frame for what came in one, or for no code."""
    if code in _SENDABLE:
        return code
    return _GOING_AWAY if code == _ABNORMAL else _NORMAL


async def _close(end: End, send: Send) -> None:
    """Tell the client; its connection gives it a moment to answer."""
    if end.by_client:
        return
    if end.error is not None:  # as OpenAI's own server does it
        event = {"type": "error", **end.error.body()}
        await send({"type": "websocket.send", "text": msgspec.json.encode(event).decode()})
    code, reason = _sendable(end.code), reason_that_fits(end.reason)
    await send({"type": "websocket.close", "code": code, "reason": reason})
