"""One HTTP/1.1 request to an engine and its answer, over a stream of its own.

Why not httpx, which does the rest here: this is the one path that every streamed token takes.
Measured (`nox -s bench`: 16 streams of 200 chunks/s, CPython 3.11): reading a chunk costs 37 µs
of CPU here and 95 µs with httpx, a small answer 0.3 ms and 0.8 ms. In a burst what one read gave
is one piece here, however many chunks it held.

Why a connection for each request: connecting on loopback costs 0.1 ms, an idle kept connection
occupies a thread of llama.cpp's server, and there is no pool that a request could wait in or
that a cancelled request could leak. Cancelling is closing the socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

import httptools
import trio

from trio_gateway.engine.http.body_source import BodySource, send_and_receive_head

RECEIVE_BYTES = 65536

Header = tuple[bytes, bytes]
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class EngineUnreachable(Exception):
    """Nothing accepts connections at the engine's address."""


class OutOfSockets(EngineUnreachable):
    """The gateway itself cannot open one more connection: it says nothing of the engine."""


class EngineDisconnected(Exception):
    """The engine closed the connection before its answer was complete."""


class EngineTalksGarbage(Exception):
    """The engine's answer is not HTTP."""


class ExchangeAborted(Exception):
    """The gateway itself ended the exchange; the message says why."""


class EngineUnloaded(ExchangeAborted):
    """Somebody had the engine stopped, and did not want to wait for its requests."""


# What a request gets whose engine is gone or not what it should be.
ENGINE_LOST = (EngineUnreachable, EngineDisconnected, EngineTalksGarbage)

# Errors of the machine or the gateway's own limits, met before the engine had any part in it.
OWN_LIMITS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


class Pulse:
    """Counts what was read of one engine: a sign of life that costs no look at the clock."""

    __slots__ = ("beats",)

    def __init__(self) -> None:
        self.beats = 0


class Exchange:
    """The answer: `status` and `headers` are there from the start, the body comes by `receive`."""

    def __init__(self, stream: Stream) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.complete = False
        self.pulse = Pulse()  # whoever opens it may put a shared one here
        self._stream = stream
        # Of TLS the lower end: nobody waits for the peer's farewell.
        transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        self._socket = transport.socket
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
        """Wait for more than so many bytes of the body, or for all of it; `receive` gives it then.
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
        self.pulse.beats += 1
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise EngineTalksGarbage(f"the engine's answer is not HTTP: {error}") from error

    def abort(self, error: Exception) -> None:
        """End it from outside: whoever waits in `receive` gets this error."""
        self._abort_error = error
        self._socket.close()

    def close(self) -> None:
        """Close the connection; an engine that still generates notices and stops."""
        self._socket.close()


async def open_exchange(
    host: str,
    port: int,
    method: str,
    target: str,
    headers: Sequence[Header],
    body: bytes | BodySource,
    *,
    on_open: Callable[[Exchange], None],
    connect: Callable[[], Awaitable[Stream]] | None = None,
) -> Exchange:
    """Send a request and wait for the answer's status and headers. A BodySource that breaks off
    raises what it raises, with the connection closed in the middle of the request.

    `connect` opens the connection where that takes more than a socket: a name, TLS. It raises
    EngineUnreachable itself, and `headers` then have the `Host`.

    `on_open` is told of the exchange as soon as there is one, so that it can be aborted while the
    engine has not answered yet. The caller closes the exchange; a failure here closes it as well.

    Raises:
        EngineUnreachable, EngineDisconnected, EngineTalksGarbage, ExchangeAborted
    """
    stream: Stream
    try:
        stream = await (_connect(host, port) if connect is None else connect())
    except OSError as error:
        if error.errno in OWN_LIMITS:
            raise OutOfSockets(out_of_sockets(error)) from error
        raise EngineUnreachable(f"nothing answers at {host}:{port}") from error
    exchange = Exchange(stream)
    try:
        on_open(exchange)
        lines = [f"{method} {target} HTTP/1.1\r\n".encode("latin-1")]
        if connect is None:
            name = f"[{host}]" if ":" in host else host
            lines.append(f"Host: {name}:{port}\r\n".encode("latin-1"))
        lines += [b"%b: %b\r\n" % header for header in headers]
        length = len(body) if isinstance(body, bytes) else body.length
        framing = (
            b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
        )
        lines.append(b"%b\r\nConnection: close\r\n\r\n" % framing)
        if not isinstance(body, bytes):
            await send_and_receive_head(exchange, stream, b"".join(lines), body)
            return exchange
        # One that stops reading may have answered (413 …) before: look at the answer in any case.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(b"".join(lines) + body)
        await exchange.receive_head()
    except BaseException:
        exchange.close()
        raise
    return exchange


def out_of_sockets(error: OSError) -> str:
    """One of OWN_LIMITS in words that say whose trouble it is."""
    return f"the gateway cannot open a socket: {os.strerror(error.errno or 0)} (see `ulimit -n`)"


async def _connect(host: str, port: int) -> trio.SocketStream:
    """An engine has one address: the race between several, which `trio.open_tcp_stream` is made
    for, would take a nursery and a task per request. Measured beside it: 7 % less CPU for a
    small request."""
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        await sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)
