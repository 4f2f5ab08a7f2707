"""StopSignals: what SIGINT, SIGTERM and SIGHUP do, from the first line of a command to its last.

The first two stop the gateway. SIGHUP means two things: from a terminal that closes, the same; from
anybody else, as of any service, that the configuration is to be read anew.

One handler for all of that time. Until the gateway's loop runs there is nothing to end in order, so
a signal ends the process right in the handler. From then on it sets an event that the gateway waits
for. Nothing is raised, and no signal is passed on as another: a KeyboardInterrupt would come up at
any line, and a process started with SIGINT ignored (`command &` in a script) would not get one.

Imports almost nothing: a command loads this first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import stat
import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    import trio

_HANGUP = (signal.SIGHUP,) if sys.platform != "win32" else ()
SIGNALS = (signal.SIGINT, signal.SIGTERM, *_HANGUP)
# The loop may be stuck: after so many the handler waits for it no longer.
ENOUGH = 3


class Stoppable(Protocol):
    """What the signals are for: a GatewayServer, or the gateway under `hypercorn`."""

    def begin_shutdown(self, why: str) -> None: ...
    def end_now(self, why: str) -> None: ...


class StopSignals:
    """`install`, then in the loop `attach`, then `mark_ready`. Never taken away again: it is for a
    process that ends after its gateway.

    Exit codes: a signal before `mark_ready` makes it 128 and the signal's number, as of a program
    that the signal has ended. One after that makes it 0: the gateway stops in order.
    """

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._first: trio.Event
        self._second: trio.Event
        self._reload: trio.Event
        self._wants_reload = False  # since before there was a loop
        self._has_terminal = False
        self._count = 0
        self.is_ready = False
        self.received: signal.Signals | None = None  # the first one
        self.exit_code = 0

    def install(self) -> None:
        """Handle the signals from now on, however they were inherited.

        Only SIGHUP stays ignored if it was: that is what `nohup` is for.
        """
        self._has_terminal = _has_terminal()
        for number in SIGNALS:
            if number not in _HANGUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        # Python resets the handlers before it has taken itself apart, which takes 50 ms: a signal
        # that comes then would change the exit code of a process that has done all it had to.
        atexit.register(_ignore_all)

    def attach(self) -> None:
        """Called in the loop, before anything is begun that has to end in order."""
        import trio

        self._first, self._second, self._reload = trio.Event(), trio.Event(), trio.Event()
        if self._wants_reload:
            self._reload.set()
        self._token = trio.lowlevel.current_trio_token()

    async def watch(self, gateway: Stoppable) -> None:
        """Tell it of the first and of the second signal. Ends after that."""
        await self._first.wait()
        assert self.received is not None
        gateway.begin_shutdown(self.received.name)
        await self._second.wait()
        gateway.end_now("a second signal")

    async def watch_reloads(self, reload: Callable[[str], Awaitable[object]]) -> None:
        """Call it for each SIGHUP that is no terminal's end, and for several that come meanwhile
        once; until cancelled."""
        import trio

        while True:
            await self._reload.wait()
            self._reload = trio.Event()
            await reload("SIGHUP")

    def mark_ready(self) -> None:
        """From here on a signal ends a gateway that was ready."""
        self.is_ready = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between any two lines of Python."""
        received = signal.Signals(number)
        if received in _HANGUP:
            if not self._is_terminals_end():
                self._want_reload()
                return
            forget_dead_output()
            if self._count:
                return  # a terminal that closes may tell it twice
        self._count += 1
        if self.received is None:
            self.received = received
            self.exit_code = 0 if self.is_ready else 128 + number
        if self._token is None or self._count >= ENOUGH:
            _say(f"trio-gateway: stopped by {received.name}")
            os._exit(128 + number)
        import trio

        with contextlib.suppress(trio.RunFinishedError):  # then it ends already
            self._token.run_sync_soon((self._first if self._count == 1 else self._second).set)

    def _is_terminals_end(self) -> bool:
        return terminal_is_gone() or (self._has_terminal and not _has_terminal())

    def _want_reload(self) -> None:
        self._wants_reload = True
        if self._token is not None:
            import trio

            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(lambda: self._reload.set())


def _has_terminal() -> bool:
    """Whether this process is of a terminal's session. A terminal that closes has none any more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _say(line: str) -> None:
    """To the file itself: what was interrupted may have been writing to Python's stream."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _ignore_all() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def forget_dead_output() -> None:
    """Let stdout and stderr lead nowhere, each if its terminal or its reader is gone: nothing that
    is written there may raise, and nothing may be left to be written at the end."""
    for descriptor in _dead(1, 2):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def terminal_is_gone() -> bool:
    """Whether stdin, stdout or stderr is a terminal that was closed."""
    return any(stat.S_ISCHR(os.fstat(descriptor).st_mode) for descriptor in _dead(0, 1, 2))


def _dead(*descriptors: int) -> list[int]:
    """Those without an other end, as the system says it."""
    if not hasattr(select, "poll"):
        return []
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, 0)
    gone = select.POLLHUP | select.POLLERR
    return [descriptor for descriptor, events in poll.poll(0) if events & gone]
