"""One HTTP/1.1 request to an engine and its answer, over a stream of its own.

Why not httpx, which asks the gateway's own questions (control.py): this is the one path that
every streamed token takes.
Measured (`nox -s bench`: 16 streams of 200 chunks/s, CPython 3.11): reading a chunk costs 37 µs
of CPU here and 95 µs with httpx, a small answer 0.3 ms and 0.8 ms. In a burst what one read gave
is one piece here, however many chunks it held.

Why a connection for each request: connecting on loopback costs 0.1 ms, an idle kept connection
occupies a thread of llama.cpp's server, and there is no pool that a request could wait in or
that a cancelled request could leak. Cancelling is closing the socket.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import httptools
import trio

from trio_gateway.engine.errors import EngineDisconnected, EngineTalksGarbage
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.opener import Stream, socket_of

RECEIVE_BYTES = 65536
FIRST_ERROR_STATUS = 400

Header = tuple[bytes, bytes]


class Pulse:
    """Counts what was read of one engine: a sign of life that costs no look at the clock."""

    __slots__ = ("beats",)

    def __init__(self) -> None:
        self.beats = 0


class Exchange:
    """The answer: `status` and `headers` are there from the start, the body comes by `receive`."""

    def __init__(self, stream: Stream, pulse: Pulse) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.complete = False
        self._stream, self._pulse = stream, pulse
        self._socket = socket_of(stream)
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._framed = False
        self._head_complete = False
        self._abort_error: Exception | None = None

    # -- called by the parser -----------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        self._framed = self._framed or lower in (b"content-length", b"transfer-encoding")
        self.headers.append((lower, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        # 100 Continue, 103 Early Hints: the answer itself is still to come.
        self._head_complete = status >= 200 or status == 101

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._head_complete:
            self.complete = True
        else:
            self.headers, self._framed = [], False

    # -- called by us -------------------------------------------------------------------------

    async def request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes | BodySource
    ) -> None:
        """Send the request and wait for the answer's status and headers. `headers` have the `Host`.
        A BodySource that breaks off raises what it raises.

        Raises:
            EngineDisconnected, EngineTalksGarbage, ExchangeAborted
        """
        lines = [f"{method} {target} HTTP/1.1\r\n".encode("latin-1")]
        lines += [b"%b: %b\r\n" % header for header in headers]
        length = len(body) if isinstance(body, bytes) else body.length
        framing = (
            b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
        )
        lines.append(b"%b\r\nConnection: close\r\n\r\n" % framing)
        if not isinstance(body, bytes):
            await _send_and_receive_head(self, self._stream, b"".join(lines), body)
            return
        # One that stops reading may have answered (413 …) before: look at the answer in any case.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(b"".join(lines) + body)
        await self.receive_head()

    async def receive(self) -> bytes:
        """What the next read gave of the body; `b""` when the answer is complete.

        Raises:
            EngineDisconnected, EngineTalksGarbage, ExchangeAborted
        """
        while not self._pieces:
            if self.complete:
                return b""
            await self._read()
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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
        self.status = self._parser.get_status_code()

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self._abort_error is not None:
                raise self._abort_error from None
            raise EngineDisconnected("the connection to the engine broke") from error
        if not data:
            if self._head_complete and not self._framed:
                self.complete = True  # without a length the end of the connection is the end
                return
            raise EngineDisconnected("the engine closed the connection in the middle of its answer")
        self._pulse.beats += 1
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise EngineTalksGarbage(f"the engine's answer is not HTTP: {error}") from error

    def abort(self, error: Exception) -> None:
        """End it from outside: what waits in `receive` gets this error."""
        self._abort_error = error
        self._socket.close()

    def close(self) -> None:
        """Close the connection; an engine that still generates notices and stops."""
        self._socket.close()


async def _send_and_receive_head(
    exchange: Exchange, stream: trio.abc.SendStream, head: bytes, source: BodySource
) -> None:
    """Send head and body while the engine may answer already. An error that it answers with ends
    the sending; any other answer waits for the end of the body.

    Raises:
        EngineDisconnected, EngineTalksGarbage, ExchangeAborted, or what `source` raises
    """
    broke_off: Exception | None = None
    lost: Exception | None = None

    async def send() -> None:
        nonlocal broke_off
        try:
            with sending:
                await _send_pieces(stream, head, source)
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


async def _send_pieces(stream: trio.abc.SendStream, head: bytes, source: BodySource) -> None:
    # One that stops reading may have answered (413 …) before: the answer is looked at in any case.
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(head)
        while piece := await source.receive():
            if source.length is None:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            await stream.send_all(piece)
        if source.length is None:
            await stream.send_all(b"0\r\n\r\n")
