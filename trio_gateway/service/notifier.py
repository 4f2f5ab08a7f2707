"""Notifier: tells the service manager that the gateway is ready, reloads, stops, and is alive.

systemd's protocol (`man sd_notify`): datagrams of `NAME=value` lines to the socket that
$NOTIFY_SOCKET names. It is ten lines, and the libraries for it block the loop as they send.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress

import trio

log = logging.getLogger(__name__)

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
        self._waiting: deque[str] = deque()
        self._news = trio.Event()
        self._fault = ""

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
        """The configuration is read anew while the block runs. One that raises has changed
        nothing."""
        if not self._is_ready:
            yield
            return
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reading the configuration anew")
        result = "; the configuration was not taken over: see the log"
        try:
            yield
            result = ""
        finally:
            if self._is_ready:  # it may stop by now
                self._tell(f"READY=1\nSTATUS={self._status}{result}")

    def _tell(self, message: str) -> None:
        if self._address:
            self._waiting.append(message)
            self._news.set()

    async def run(self, closing: trio.Event, may_take_s: Callable[[], float]) -> None:
        """Send what there is to say, and by that, on time, that the loop is alive; until cancelled.

        Args:
            closing: the gateway stops.
            may_take_s: how long that may take, as things are then.
        """
        if not self._address:
            return
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, sender)
                    await closing.wait()
                    self._stopping(may_take_s())
            finally:
                if closing.is_set():
                    self._stopping(may_take_s())
                self._send_the_rest()

    def _stopping(self, may_take_s: float) -> None:
        if self._is_ready:
            self._is_ready = False
            # A reload may have set another grace than the unit knows of.
            extend = f"EXTEND_TIMEOUT_USEC={round(may_take_s * 1e6)}"
            status = "STATUS=stopping: answers that have begun have their grace"
            self._tell(f"STOPPING=1\n{extend}\n{status}")

    async def _send(self, sender: trio.socket.SocketType) -> None:
        # Twice as often as it has to be, as the manual says.
        every_s = self._watchdog_s / 2 if self._watchdog_s else float("inf")
        next_sign = trio.current_time() + every_s
        while True:
            with trio.CancelScope(deadline=next_sign):
                await self._news.wait()
            self._news = trio.Event()
            while self._waiting:
                await self._send_one(sender, self._waiting[0])
                self._waiting.popleft()
            if trio.current_time() >= next_sign:
                await self._send_one(sender, "WATCHDOG=1")
                next_sign = trio.current_time() + every_s

    async def _send_one(self, sender: trio.socket.SocketType, message: str) -> None:
        fault = ""
        try:
            await sender.sendto(message.encode(), self._address)
        except OSError as error:
            fault = error.strerror or repr(error)
        if fault and fault != self._fault:
            log.warning("the service manager cannot be told: %s", fault)
        self._fault = fault

    def _send_the_rest(self) -> None:
        """As it is cancelled, without waiting: a manager that lives reads what it gets."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
            sender.setblocking(False)
            while self._waiting:
                sender.sendto(self._waiting.popleft().encode(), self._address)
