"""One HTTP/1.1 request to an engine and its answer, over a connection that it has to itself.

Why not httpx: this is the one path that every streamed token takes. Measured in one run of
`benchmarks/clients.py` (CPython 3.11, 16 streams of 200 chunks a second): reading a chunk costs
17 µs of CPU here, and 80 µs with httpx; a small request over a kept connection 50 µs, and 1,000 µs
with httpx. What one read gave is one piece here, however many chunks it held.

Cancelling is closing the connection: the engine then stops generating. Only one whose answer was
read to its end serves again (connections.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import httptools
import trio

from trio_gateway.engine.errors import EngineDisconnected, EngineTalksGarbage
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.opener import Opener
from trio_gateway.engine.http.transport import Transport

FIRST_ERROR_STATUS = 400
_COPIED_MAX_BYTES = 256 * 1024
# What is read in a row that is nothing of a body: a head, or trailers, or chunks' extensions. The
# parser joins a line anew with each read: one of 20 MB would take 2 s.
NO_BODY_MAX_BYTES = 64 * 1024
HEADERS_MAX = 256

Header = tuple[bytes, bytes]
_FRAMES = {b"content-length", b"transfer-encoding"}  # they say where an answer ends
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
_NO_PARSER = httptools.HttpResponseParser(object())


class Pulse:
    """Counts what was read of one engine: a sign of life that costs no look at the clock."""

    __slots__ = ("beats",)

    def __init__(self) -> None:
        self.beats = 0


class Exchange:
    """The answer: `status` and `headers` are there from the start, the body comes by `receive`.

    `complete`: all of it has come. `has_begun`: something of it has. `keep_alive`: what the engine
    says about the connection. `why_there`: of several places, which one it is and why, in the words
    of whoever has chosen it.
    """

    __slots__ = (
        "_abort_error", "_head_complete", "_lasts", "_parser", "_pieces", "_pulse", "_seen",
        "_sent", "_without_body",
        "complete", "has_begun", "headers", "keep_alive", "opener", "status", "transport",
        "why_there",
    )  # fmt: skip

    def __init__(self, transport: Transport, opener: Opener, pulse: Pulse) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.keep_alive = b""
        self.why_there = ""
        self.complete = self.has_begun = False
        self.transport, self.opener, self._pulse = transport, opener, pulse
        self._parser = httptools.HttpResponseParser(self)
        self._seen: list[Header] = []
        self._pieces: list[bytes] = []
        self._head_complete = self._lasts = self._sent = False
        self._abort_error: Exception | None = None
        self._without_body = 0  # bytes, since something of the body has come

    # -- called by the parser -----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second answer, which nobody asked for")
        self.has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._seen.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        headers, self._seen = self._seen, []  # trailers come later, and nobody asks for them
        if len(headers) > HEADERS_MAX:
            raise ValueError("more headers than any answer needs")
        parser = self._parser
        status = parser.get_status_code()
        if status >= 200 or status == 101:
            self.status, self.headers, self._head_complete = status, headers, True
            self.keep_alive = dict(headers).get(b"keep-alive", b"")
            self._lasts = parser.should_keep_alive() and parser.get_http_version() == "1.1"
        # 100 Continue, 103 Early Hints: the answer itself is still to come.

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete = self._head_complete

    # -- called by us -------------------------------------------------------------------------

    async def request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes | BodySource
    ) -> None:
        """Send the request and wait for the answer's status and headers. `headers` come after the
        `Host`. A BodySource that breaks off raises what it raises.

        Raises:
            EngineDisconnected, EngineTalksGarbage, ExchangeAborted
        """
        start = f"{method} {target} HTTP/1.1\r\nHost: ".encode("latin-1") + self.opener.authority
        head = b"\r\n".join((start, *map(b": ".join, headers), b""))
        if not isinstance(body, bytes):
            if body.length is None:
                head += b"Transfer-Encoding: chunked\r\n\r\n"
            else:
                head += b"Content-Length: %d\r\n\r\n" % body.length
            self._sent = await _send_and_receive_head(self, head, body)
            return
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        try:
            if len(body) > _COPIED_MAX_BYTES:  # a large one waits for its engine once, not twice
                await self.transport.send(head)
                await self.transport.send(body)
            else:
                await self.transport.send(head + body)
            self._sent = True
        except _BROKEN:
            pass  # it may have answered (413 …) before: its answer is looked at in any case
        while not self._head_complete:
            try:  # as `_read`, without a coroutine more for each request
                data = await self.transport.receive()
            except _BROKEN as error:
                raise self._lost() from error
            self._take(data)

    async def receive(self) -> bytes:
        """What the next read gave of the body; `b""` when the answer is complete.

        Raises:
            EngineDisconnected, EngineTalksGarbage, ExchangeAborted
        """
        while not self._pieces:
            if self.complete:
                return b""
            try:  # as `_read`, without a coroutine more for each chunk
                data = await self.transport.receive()
            except _BROKEN as error:
                raise self._lost() from error
            self._take(data)
        if len(self._pieces) == 1:
            return self._pieces.pop()
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    async def prefetch(self, up_to: int) -> None:
        """Wait for more than `up_to` bytes of the body, or for all of it; `receive` gives it then.
        Raises as `receive` does."""
        size = counted = 0
        while True:
            size += sum(map(len, self._pieces[counted:]))
            counted = len(self._pieces)
            if self.complete or size > up_to:
                return
            await self._read()

    async def receive_head(self) -> None:
        """Wait for status and headers. Raises as `receive` does."""
        while not self._head_complete:
            await self._read()

    async def _read(self) -> None:
        try:
            data = await self.transport.receive()
        except _BROKEN as error:
            raise self._lost() from error
        self._take(data)

    def _lost(self) -> Exception:
        """What it means that the connection is broken."""
        return self._abort_error or EngineDisconnected("the connection to the engine broke")

    def _take(self, data: bytes) -> None:
        """What one read gave."""
        if not data:
            if self._head_complete and _FRAMES.isdisjoint(dict(self.headers)):
                self.complete = True  # without a length the end of the connection is the end
                return
            raise EngineDisconnected("the engine closed the connection in the middle of its answer")
        self._pulse.beats += 1
        pieces = len(self._pieces)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete or isinstance(error, httptools.HttpParserUpgrade):
                raise EngineTalksGarbage(
                    f"the engine's answer is not HTTP: {_said(error)}"
                ) from error
            self._lasts = False  # more came than the answer
        if len(self._pieces) > pieces:
            self._without_body = 0
            return
        self._without_body += len(data)
        if self._without_body > NO_BODY_MAX_BYTES and not self.complete:
            raise EngineTalksGarbage(
                f"the engine's answer has headers of more than {NO_BODY_MAX_BYTES} bytes"
            )

    @property
    def leaves_connection_open(self) -> bool:
        """Whether all was sent and all has come, and both sides may go on with another request."""
        return self.complete and self._lasts and self._sent

    def abort(self, error: Exception) -> None:
        """End it from outside: what waits in `receive` gets this error."""
        self._abort_error = error
        self.transport.close()

    def close(self) -> None:
        """Close the connection, unless it was let go; an engine that still generates stops."""
        if self._parser is not _NO_PARSER:
            self._lasts = False
            self.transport.close()
            self.let_go()

    def let_go(self) -> None:
        """Leave the connection to others. The parser knows this object: once that circle is broken,
        both are freed at once, and not by a search for garbage."""
        self._parser = _NO_PARSER


def _said(error: Exception) -> str:
    """What the parser says, or what one of our callbacks said to it."""
    ours = error.__context__
    return str(ours if isinstance(ours, ValueError) else error)


async def _send_and_receive_head(exchange: Exchange, head: bytes, source: BodySource) -> bool:
    """Send head and body while the engine may answer already. An error that it answers with ends
    the sending; any other answer waits for the end of the body. Whether all of it was sent.

    Raises:
        EngineDisconnected, EngineTalksGarbage, ExchangeAborted, or what `source` raises
    """
    broke_off: Exception | None = None
    lost: Exception | None = None
    sent = False

    async def send() -> None:
        nonlocal broke_off, sent
        try:
            with sending, contextlib.suppress(*_BROKEN):  # as for a body that is whole
                sent = await _send_pieces(exchange.transport, head, source)
        except Exception as error:  # noqa: BLE001 - it is raised below, not in a group
            broke_off = error
            nursery.cancel_scope.cancel(reason="the body broke off")

    sending = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            await exchange.receive_head()
        except Exception as error:  # noqa: BLE001 - as above
            lost = error
            nursery.cancel_scope.cancel(reason="the engine is lost")
        else:
            if exchange.status >= FIRST_ERROR_STATUS:
                sending.cancel(reason="the engine has refused it")
    # The body's own error comes first: an engine that is lost with it is not to blame.
    if broke_off is not None:
        raise broke_off
    if lost is not None:
        raise lost
    return sent


async def _send_pieces(transport: Transport, head: bytes, source: BodySource) -> bool:
    """Whether it was as long as the head says: an engine would take what is left over for the
    beginning of the next request."""
    size = 0
    await transport.send(head)
    while piece := await source.receive():
        size += len(piece)
        if source.length is None:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        await transport.send(piece)
        await trio.lowlevel.checkpoint()  # a large body must not keep the others waiting
    if source.length is None:
        await transport.send(b"0\r\n\r\n")
    return source.length is None or size == source.length
