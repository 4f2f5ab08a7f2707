"""Notifier: tells the service manager that the gateway is ready, reloads, stops, and is alive.

systemd's protocol (`man sd_notify`): datagrams of `NAME=value` lines to the socket that
$NOTIFY_SOCKET names. It is ten lines, and the libraries for it block the loop as they send.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

import trio

log = logging.getLogger(__name__)

_QUEUED = 16  # a manager that reads nothing for so many has other troubles
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Says nothing where no service manager asked to be told.

    Args:
        address: of its socket; empty: there is none. `@` begins an abstract one.
        watchdog_s: it ends a gateway that has not been heard of for so long; None: it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._status = ""
        self._is_ready = False
        self._told, self._telling = trio.open_memory_channel[str](_QUEUED)

    @classmethod
    def of(cls, environ: MutableMapping[str, str], *pids: int) -> Notifier:
        """As that environment says, out of which it is taken: engines are not to answer for the
        gateway. `pids`: whom a watchdog may mean."""
        address, usec, pid = (environ.pop(name, "") for name in _VARIABLES)
        if not address.startswith(("/", "@")):
            return cls()
        is_meant = not pid or pid in map(str, pids)
        watchdog_s = int(usec) / 1e6 if usec.isdecimal() and int(usec) and is_meant else None
        return cls(address, watchdog_s)

    def ready(self, status: str) -> None:
        """The listeners are open."""
        self._status, self._is_ready = status, True
        self._tell(f"READY=1\nSTATUS={status}")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The configuration is read anew while the block runs."""
        if not self._is_ready:
            yield
            return
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reading the configuration anew")
        try:
            yield
        finally:
            self._tell(f"READY=1\nSTATUS={self._status}")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        try:
            self._told.send_nowait(message)
        except trio.WouldBlock:
            log.warning("the service manager reads nothing: %s is lost", message.partition("\n")[0])

    async def run(self, closing: trio.Event) -> None:
        """Send what there is to say, and by that, on time, that the loop is alive; until cancelled.
        `closing`: the gateway stops."""
        if not self._address:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            await closing.wait()
            self._is_ready = False
            self._tell("STOPPING=1\nSTATUS=stopping: answers that have begun have their grace")

    async def _send(self) -> None:
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            while True:
                message = "WATCHDOG=1"
                # Twice as often as it has to be, as the manual says.
                with trio.move_on_after(self._watchdog_s / 2 if self._watchdog_s else float("inf")):
                    message = await self._telling.receive()
                try:
                    await sender.sendto(message.encode(), self._address)
                except OSError as error:
                    log.warning("the service manager cannot be told: %s", error.strerror)
