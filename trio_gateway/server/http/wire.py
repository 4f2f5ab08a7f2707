"""Wire: a client's connection as bytes, whatever carries them.

One task reads at a time, and one sends. A plain socket is used itself: trio's stream around it
tries each read before it waits, gives up its turn after each call, and looks for a second task in
it. Together this was 20 us of CPU for each chunk of a stream.
"""

from __future__ import annotations

import abc
import contextlib
import socket
import struct
from typing import Any

import trio

from trio_gateway.server.http.end_watch import EndWatch, end_watch
from trio_gateway.server.http.types import ClientGone

READ_BYTES = 65536
_RESET = struct.pack("ii", 1, 0)
_FAREWELL_S = 1.0  # for TLS to say that it is the end

_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)


class Wire(abc.ABC):
    """`sending_since`: when the send that is under way last made progress; None: there is none.
    `is_cut_short`: what was sent ends with the connection, and is not complete."""

    def __init__(self) -> None:
        self.sending_since: float | None = None
        self.is_cut_short = False

    @abc.abstractmethod
    async def read(self) -> bytes:
        """The next bytes; `b""` once the client is gone or has closed its side."""

    def read_now(self) -> bytes:
        """What is there already; `b""` if nothing is, or only waiting would tell."""
        return b""

    @abc.abstractmethod
    async def send(self, data: bytes) -> None:
        """All of it. Somebody who sends much must make a checkpoint now and then. Cancelled,
        nothing of it was sent, or nothing more can be.

        Raises:
            ClientGone
        """

    @abc.abstractmethod
    async def send_end(self) -> None:
        """Say that nothing more comes, where that can be said; the client may go on sending."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close it. What was sent still arrives, if nothing is unread."""

    @abc.abstractmethod
    async def tear(self) -> None:
        """Close it at once."""


class SocketWire(Wire):
    """A socket without TLS, taken out of trio's stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__()
        taken = stream.socket
        kind = taken.family, taken.type, taken.proto
        self._socket = socket.socket(*kind, fileno=taken.detach())
        self._socket.setblocking(False)
        self._is_closed, self._is_read = False, True
        self._end: EndWatch | None = None

    def watch_end(self) -> EndWatch | None:
        """What tells that the client is gone or has closed its side, until the wire is closed.
        None: only reading does."""
        self._end = end_watch(self._socket)
        return self._end

    async def read(self) -> bytes:
        while self._is_read:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                return self._socket.recv(READ_BYTES)
            except BlockingIOError:
                continue  # woken for nothing
            except _GONE:
                break
        return b""

    def read_now(self) -> bytes:
        try:
            return self._socket.recv(READ_BYTES)
        except OSError:  # nothing yet; or it is broken, which `read` finds as well
            return b""

    def stop_reading(self) -> None:
        """A `read` ends with `b""`, also one that waits."""
        self._is_read = False
        if not self._is_closed:
            trio.lowlevel.notify_closing(self._socket)

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self._send(data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            while sent < len(data):
                self.sending_since = trio.current_time()
                try:
                    await trio.lowlevel.wait_writable(self._socket)
                except _GONE as error:
                    raise ClientGone(str(error)) from None
                except trio.Cancelled:
                    self._close()  # what was sent next would look like the rest of this
                    raise
                sent += self._send(view[sent:])
        self.sending_since = None

    def _send(self, data: bytes | memoryview) -> int:
        if self._is_closed:
            raise ClientGone("the connection is closed")
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone(str(error)) from None

    async def send_end(self) -> None:
        with contextlib.suppress(*_GONE):
            self._socket.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        self._close()

    async def tear(self) -> None:
        self._close()

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed, self._is_read = True, False
            if self.is_cut_short:
                _reset_when_closed(self._socket)
            if self._end is not None:
                self._end.close()
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class StreamWire(Wire):
    """Any other stream of trio's: TLS, or memory in a test."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    async def read(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except _GONE:
            return b""

    async def send(self, data: bytes) -> None:
        # In parts, so that progress shows.
        for start in range(0, len(data), READ_BYTES):
            self.sending_since = trio.current_time()
            try:
                await self._stream.send_all(data[start : start + READ_BYTES])
            except _GONE as error:
                raise ClientGone(str(error)) from None
            except trio.Cancelled:
                if start:  # TLS knows by itself of a part of which it sent some
                    await self.tear()
                raise
        self.sending_since = None

    async def send_end(self) -> None:
        with contextlib.suppress(AttributeError, *_GONE):  # TLS cannot say it for one side only
            await self._stream.send_eof()

    async def close(self) -> None:
        with trio.move_on_after(_FAREWELL_S), contextlib.suppress(*_GONE):
            await self._stream.aclose()
            return
        await self.tear()

    async def tear(self) -> None:
        if self.is_cut_short:
            _reset_when_closed(getattr(self._stream, "transport_stream", self._stream).socket)
        await trio.aclose_forcefully(self._stream)


def _reset_when_closed(sock: Any) -> None:
    """Let the client see that something is missing. Many take the end of a connection for the end
    of what they read, and over TLS, too."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def wire_of(stream: Any) -> Wire:
    return SocketWire(stream) if type(stream) is trio.SocketStream else StreamWire(stream)
