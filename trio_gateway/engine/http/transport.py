"""Transport: the bytes of one connection to an engine, plain or with TLS."""

from __future__ import annotations

import abc
import contextlib
import select
import socket

import trio

RECEIVE_BYTES = 65536
_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it


class Transport(abc.ABC):
    """Over a connected socket, which it owns. One task may send while another one receives. What
    broke raises trio.BrokenResourceError, what was closed here trio.ClosedResourceError."""

    exchanges = 0  # that it has had

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._arrivals = select.poll()
        self._arrivals.register(sock, select.POLLIN)

    @abc.abstractmethod
    async def send(self, data: bytes) -> None:
        """Send all of it. A checkpoint only if it has to wait: who sends much makes one."""

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """What has come, once anything has; `b""` at the end. Always a checkpoint."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come that was not received, neither bytes nor the end."""
        return not self._arrivals.poll(0)

    def break_if_unheard(self, limit_s: float) -> None:
        """Break if the other host does not acknowledge within this time what is sent; 0: when the
        system gives up, after a quarter of an hour. Not every system can be told."""
        if _USER_TIMEOUT is not None:
            with contextlib.suppress(OSError):  # it is broken already: the next use of it will tell
                self.socket.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, round(limit_s * 1000))

    @abc.abstractmethod
    def close(self) -> None:
        """Close it at once; with TLS, nobody waits for the other side's farewell."""


class PlainTransport(Transport):
    """The socket itself, not trio's stream around one, which tries each read before it waits, gives
    up its turn after each that succeeds, and looks for conflicts.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # one that broke already: the next use of it will tell
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock)
        self._closed = False

    async def send(self, data: bytes) -> None:
        sent = self._send(data)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                await trio.lowlevel.wait_writable(self.socket)
                rest = rest[self._send(rest) :]

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._broken() from error

    async def receive(self) -> bytes:
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return self.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue  # woken for nothing
            except OSError as error:
                raise self._broken() from error

    def _broken(self) -> Exception:
        return trio.ClosedResourceError() if self._closed else trio.BrokenResourceError()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()


class TlsTransport(Transport):
    """`stream` is over that socket, and its handshake is done."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], sock: socket.socket) -> None:
        super().__init__(sock)
        self._stream = stream

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        return bytes(await self._stream.receive_some(RECEIVE_BYTES))

    @property
    def is_quiet(self) -> bool:
        # A record may have come along with the last one that was read. Trio shows what of it is
        # decrypted, but not what is still to be; a test fails if it keeps that elsewhere one day.
        unread = self._stream.pending() or self._stream._incoming.pending
        return not unread and super().is_quiet

    def close(self) -> None:
        self._stream.transport_stream.socket.close()
