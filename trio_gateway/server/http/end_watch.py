"""EndWatch: tells that a client is gone or has closed its side, and reads nothing of what it sent.

trio can wait until there is something to read, and at the end there is; but also with each byte.
So what waits for the end alone is an epoll of its own, in which nothing else can happen.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

import trio


class EndWatch:
    """Of one socket; one more open file. Linux has it.

    Raises:
        OSError: no more files can be opened.
    """

    def __init__(self, sock: socket.socket) -> None:
        assert sys.platform == "linux"
        self._epoll = select.epoll(1)
        self._epoll.register(sock, select.EPOLLRDHUP)  # and an error, of which it always tells

    async def wait(self) -> None:
        """Until the end of what the client sends, or `close`. Some of that may be unread."""
        if self._epoll.closed:
            return
        with contextlib.suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(self._epoll.fileno())

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._epoll.fileno())
        self._epoll.close()


def end_watch(sock: socket.socket) -> EndWatch | None:
    """None where there is none, or no file is left for it: then somebody has to read."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        return EndWatch(sock)
    return None
