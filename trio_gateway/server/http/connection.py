"""Connection: one client's connection, from its first byte to its last.

It takes the place of hypercorn's TCPServer, protocols and streams; docs/decisions/hypercorn.md says
why. The app is called in the connection's own task. A second task waits for the end of what the
client sends, so that it is noticed at once when that goes away: that cancels the request under way.
It also keeps the time: for a head, between requests, and for a client that does not take what it is
sent.

One connection knows of nobody else; what they share is in `client_connections.py`.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
from typing import Protocol

import trio

from trio_gateway.run_clock import run_clock
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.cycle import Cycle, scope_of
from trio_gateway.server.http.http1 import RequestHead, read_head, what_was_asked
from trio_gateway.server.http.inbox import InboxWire, ReadAhead, inbox_of
from trio_gateway.server.http.places import Silence
from trio_gateway.server.http.refusal import last_refusal
from trio_gateway.server.http.types import (
    CYCLE_KEY,
    FIRST_KEY,
    HALF_CLOSED_S,
    LINGER_S,
    REQUEST_ID_HEADER,
    AsgiApp,
    ClientGone,
    Facts,
    Header,
    Limits,
    new_request_id,
)
from trio_gateway.server.http.wire import Wire

log = logging.getLogger(__name__)


class Phase(enum.Enum):
    IDLE = enum.auto()  # between requests, nothing of the next has come
    HEAD = enum.auto()
    REQUEST = enum.auto()
    LINGER = enum.auto()  # it is answered, and what still comes of it is thrown away
    OVER = enum.auto()


class Shared(Protocol):
    """What a connection needs of all of them."""

    limits: Limits
    read_ahead: ReadAhead
    turn: trio.Lock
    is_stopping: bool

    def default_headers(self) -> bytes: ...


class Connection:
    """Serves an ASGI app on a wire until the client goes, its time is up, or `stop`."""

    def __init__(self, app: AsgiApp, wire: Wire, facts: Facts, shared: Shared) -> None:
        self._app, self._wire, self._facts, self._shared = app, wire, facts, shared
        self._limits = shared.limits
        self._inbox = inbox_of(wire, shared.read_ahead)
        self._gone = trio.Event()
        self._now = run_clock()
        self._phase, self._phase_since = Phase.IDLE, self._now()
        self._clock = trio.CancelScope()
        self._request: Cycle | trio.CancelScope | None = None  # the one under way
        self._is_websocket = False  # whose app is told by itself that its client is gone
        self._requests = 0

    async def run(self) -> None:
        """Raises nothing that a client can cause; and closes the wire, however it ends."""
        try:
            # Most clients have sent their first request by now, which then waits for no other task.
            self._inbox.buffer += self._wire.read_now()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                await self._serve()
                nursery.cancel_scope.cancel(reason="the connection is over")
            await self._wire.close()
        except* ClientGone:
            pass
        except* Exception:
            log.exception("a bug in the gateway; please report it")
        finally:
            self._inbox.close()
            await self._wire.tear()

    def stop(self) -> None:
        """The server stops: only a request that is under way is waited for."""
        if self._phase is not Phase.REQUEST:
            self._inbox.end()

    # -- for `Places` ------------------------------------------------------------------------------

    def silence(self) -> tuple[Silence, float] | None:
        """What of this client is waited for, and since when; None if it is the gateway's turn."""
        if self._phase is not Phase.REQUEST:
            is_idle = self._phase is Phase.IDLE and self._requests
            return Silence.IDLE if is_idle else Silence.BEGUN, self._phase_since
        since = self._wire.sending_since
        if since is None:
            since = self._inbox.waiting_since
        return None if since is None or self._is_websocket else (Silence.IN_REQUEST, since)

    def make_room(self, error: ApiError) -> None:
        """Another client needs its place. What it has begun to ask gets this answer."""
        if self._phase is Phase.REQUEST and self._wire.sending_since is not None:
            self._let_go("another client needs its place")
        self._inbox.end(error)

    # -- the task that watches the client -----------------------------------------------------

    async def _watch(self) -> None:
        """Wait until the client is gone, and keep the time meanwhile."""
        while True:
            with trio.CancelScope(deadline=self._next_look()) as self._clock:
                await self._inbox.until_end()
                if not self._is_websocket and not self._is_idle:
                    await trio.sleep_until(self._asked_at() + HALF_CLOSED_S)
                if self._is_websocket:  # it reads to its end by itself
                    return
                self._let_go("the client is gone")
                return
            if self._is_time_up():
                return

    @property
    def _is_idle(self) -> bool:
        """Whether nobody waits for anything: all that came is read and answered."""
        is_idle = self._phase is Phase.IDLE and not self._inbox.buffer
        return is_idle and self._inbox.is_ahead

    def _asked_at(self) -> float:
        """When the request under way came. What came with the client's end, comes now."""
        return self._phase_since if self._phase is Phase.REQUEST else trio.current_time()

    def _is_time_up(self) -> bool:
        """Whether the client has used up its time; then also what follows from it."""
        limits, now = self._limits, trio.current_time()
        if now < self._due():
            return False
        match self._phase:
            case Phase.IDLE:
                self._inbox.end()
            case Phase.HEAD:
                limit_s = limits.header_timeout_s
                message = f"the headers did not arrive within {limit_s:g} s (header_timeout)"
                self._inbox.end(ApiError(408, message, code="header_timeout"))
            case Phase.REQUEST:
                limit_s = limits.send_timeout_s
                log.warning("a client took nothing for %g s; it is let go (send_timeout)", limit_s)
                self._let_go("the client takes nothing more")
        return True

    def _due(self) -> float:
        """When the client's time is up, as far as is known now."""
        match self._phase:
            case Phase.IDLE:
                return self._phase_since + self._limits.keep_alive_s
            case Phase.HEAD:
                return self._phase_since + self._limits.header_timeout_s
            case Phase.REQUEST if self._wire.sending_since is not None:
                return self._wire.sending_since + self._limits.send_timeout_s
        return math.inf

    def _next_look(self) -> float:
        """When to look at the time again. Each request would have to set three deadlines, 5 us of
        CPU each; so what begins before the next look is looked at then, in time all the same."""
        return min(self._due(), trio.current_time() + self._limits.send_timeout_s)

    def _let_go(self, why: str) -> None:
        if self._request is not None:  # first: what sends is to hear of this, not that it is closed
            self._request.cancel(reason=why)
        self._leave()

    def _leave(self) -> None:
        """Nothing more comes of this client."""
        self._gone.set()
        self._inbox.end()

    def _enter(self, phase: Phase) -> None:
        self._phase, self._phase_since = phase, self._now()
        if phase is not Phase.REQUEST and self._clock.deadline > (due := self._due()):
            self._clock.deadline = due

    # -- the task that serves -----------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            while await self._serve_in_one_scope() is not Phase.OVER:
                pass  # a request was cancelled, and another one may follow
        except ApiError as error:  # what was sent is not a request
            await self._refuse(error, *what_was_asked(self._inbox.buffer))

    async def _serve_in_one_scope(self) -> Phase:
        """Answer requests until one is cancelled, or to the end. IDLE if the connection can go on
        after that, otherwise OVER. A scope for each request would be 4 % of what it costs.

        Raises:
            ApiError: what comes is not a request, or a malformed one that nothing was answered to.
        """
        cycle: Cycle | None = None
        with trio.CancelScope() as scope:
            while (head := await self._next_head()) is not None:
                self._enter(Phase.REQUEST)
                if head.wants_websocket:
                    await self._serve_websocket(head)
                    return Phase.OVER
                self._requests += 1
                keeps = head.keeps_alive and self._requests < self._limits.requests
                self._request = cycle = Cycle(
                    head, self._wire, self._inbox, scope, gone=self._gone, turn=self._shared.turn,
                    keeps_alive=keeps and not self._shared.is_stopping, began_at=self._phase_since,
                    default_headers=self._shared.default_headers,
                )  # fmt: skip
                await self._answer(cycle)
                if await self._after(cycle) is Phase.OVER:
                    return Phase.OVER
                head = cycle = None  # an idle connection keeps nothing of it
            return Phase.OVER
        assert cycle is not None, "nothing else is cancelled in this scope"
        return await self._after(cycle)

    async def _next_head(self) -> RequestHead | None:
        """The next request's; None if there will be none.

        Raises:
            ApiError: what comes is not a request, or comes too slowly.
        """
        inbox, max_bytes = self._inbox, self._limits.max_header_bytes
        self._enter(Phase.IDLE)
        seen = 0
        while True:
            if inbox.buffer:
                if (head := read_head(inbox.buffer, max_bytes, seen)) is not None:
                    return head
                inbox.raise_fault()  # if there is nothing, there is nothing to answer with it
                if self._phase is Phase.IDLE:
                    self._enter(Phase.HEAD)
            if inbox.is_over or self._shared.is_stopping:
                return None
            seen = len(inbox.buffer)
            try:
                await inbox.more(self._phase_since)
            except ApiError:  # it is raised above, if there is anything that it could answer
                continue

    async def _answer(self, cycle: Cycle) -> None:
        """Let the app answer."""
        scope = scope_of(cycle.head, self._facts)
        scope[CYCLE_KEY], scope[FIRST_KEY] = cycle, cycle.head.first
        if self._gone.is_set():
            cycle.cancel(reason="the client is gone")
        try:
            await self._app(scope, cycle.receive, cycle.send)
        except* ClientGone:  # Quart raises it in a group
            self._leave()
        except* Exception:
            log.exception("a bug in the gateway; please report it")
        if cycle.is_cancelled:  # and it ended before it noticed
            await trio.lowlevel.checkpoint()

    async def _after(self, cycle: Cycle) -> Phase:
        """Whether the connection can go on: IDLE, or OVER."""
        self._request, cycle.is_over = None, True
        if self._gone.is_set():
            return Phase.OVER
        if not cycle.has_sent:
            path = cycle.head.target.partition(b"?")[0].decode("ascii")
            message = "a bug in the gateway: there was no answer; its log says more"
            error = cycle.fault or ApiError(500, message, "internal_error")
            await self._refuse(error, path, cycle.head.headers)
            return Phase.OVER
        if not cycle.is_complete:
            await self._wire.tear()  # the client sees that something is missing
            return Phase.OVER
        self._wire.is_cut_short = False
        if not cycle.body.complete:
            if self._shared.is_stopping:  # it waits for no client
                return Phase.OVER
            if not cycle.keeps_alive:
                await self._wire.send_end()
            # Closing now would reset the connection, and the client would never see its answer.
            # What is malformed has had its answer; a second would look like that of the next.
            self._enter(Phase.LINGER)
            with trio.move_on_after(LINGER_S), contextlib.suppress(ApiError):
                await cycle.skip_body()
            if not cycle.body.complete:
                return Phase.OVER
        return Phase.IDLE if cycle.keeps_alive else Phase.OVER

    async def _refuse(self, error: ApiError, path: str, headers: list[Header]) -> None:
        """The connection's last answer. Where a next request would begin is not known."""
        refusal = last_refusal(error, path, headers)
        refusal.headers.append((REQUEST_ID_HEADER, new_request_id().encode()))
        log.debug("refused a request for %s: %s", path or "?", error.message)
        self._enter(Phase.LINGER)
        with trio.move_on_after(LINGER_S), contextlib.suppress(ApiError):
            await self._wire.send(refusal.as_http1(self._shared.default_headers()))
            await self._wire.send_end()
            # As in `_after`: let what is on its way arrive. Most clients close once they have it.
            while not self._inbox.is_over and not self._shared.is_stopping:
                self._inbox.buffer.clear()
                await self._inbox.more()

    async def _serve_websocket(self, head: RequestHead) -> None:
        scope = scope_of(head, self._facts)
        offered = b",".join(v for n, v in head.headers if n == b"sec-websocket-protocol")
        scope["subprotocols"] = [p.strip() for p in offered.decode("latin-1").split(",") if p]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if self._facts.scheme == "https" else "ws"
        del scope["method"]
        self._is_websocket = True
        # Imported here: 0.2 MB, which most gateways do not need.
        from trio_gateway.server.http.websocket_session import serve_websocket

        with trio.CancelScope() as self._request:
            await serve_websocket(
                InboxWire(self._wire, self._inbox), self._app, scope,
                max_message_bytes=self._limits.max_message_bytes,
                ping_interval_s=self._limits.ping_interval_s,
                turn=self._shared.turn,
            )  # fmt: skip
