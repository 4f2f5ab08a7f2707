"""Logs: the last lines of the gateway and of its engines, and those that come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

import trio

from trio_gateway.bus import Bus
from trio_gateway.engine.lines import EngineLines
from trio_gateway.lines import GATEWAY, EngineLine, LogLine
from trio_gateway.log import line_keeper

AHEAD_MAX = 1000  # lines that wait for one reader


class Logs:
    """`hearing` around the gateway's life. `missed`: the lines that readers were too slow for."""

    def __init__(self, bus: Bus, engines: EngineLines) -> None:
        self._bus, self._engines = bus, engines
        self._own: Sequence[LogLine] | deque[LogLine] = ()
        self.missed = 0

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """The gateway's own lines are published on the bus, whichever thread logs them."""
        token, thread = trio.lowlevel.current_trio_token(), threading.get_ident()

        def hear(line: LogLine) -> None:
            if threading.get_ident() == thread:
                self._bus.publish(line)
                return
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._bus.publish, line)

        with line_keeper() as keeper:
            self._own = keeper.lines
            keeper.listeners.append(hear)
            try:
                yield
            finally:
                keeper.listeners.remove(hear)

    def last(self, sources: Collection[str], count: int) -> list[LogLine]:
        """The newest lines of these sources, the oldest first."""
        own = [*self._own] if GATEWAY in sources else []
        lines = [*own, *self._engines.last(sources)]
        if len(sources) > 1:
            lines.sort(key=lambda line: line.at_s)
        return lines[-count:] if count else []

    @contextmanager
    def followed(self, sources: Collection[str]) -> Iterator[LineReader]:
        """What these sources say while the block runs."""
        reader = LineReader(sources, self)
        with (
            self._bus.listening(LogLine, reader.note),
            self._bus.listening(EngineLine, reader.note),
        ):
            yield reader


class LineReader:
    """Lines wait here for one reader, up to so many. `missed`: those that found no place since it
    was last asked for."""

    def __init__(self, sources: Collection[str], logs: Logs) -> None:
        self._sources, self._logs = sources, logs
        self._lines: deque[LogLine] = deque()
        self._news = trio.Event()
        self.missed = 0

    def note(self, line: LogLine) -> None:
        if line.source not in self._sources:
            return
        if len(self._lines) == AHEAD_MAX:
            self._lines.popleft()
            self.missed += 1
            self._logs.missed += 1
        self._lines.append(line)
        self._news.set()

    async def more(self) -> tuple[int, list[LogLine]]:
        """How many were missed, and the lines after these; it waits for one."""
        await self.wait()
        return self.take()

    async def wait(self) -> None:
        """Until there is a line."""
        await self._news.wait()

    def take(self) -> tuple[int, list[LogLine]]:
        """As `more`, of what is there."""
        self._news = trio.Event()
        missed, lines = self.missed, [*self._lines]
        self.missed = 0
        self._lines.clear()
        return missed, lines
