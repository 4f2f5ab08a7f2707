"""NoProcess: in place of the process of an engine that runs elsewhere."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_gateway.engine.process.process import Ending, StopReport


class NoProcess:
    """Runs until it is stopped. Nothing of it can be seen or measured."""

    pid = returncode = None
    status = "runs elsewhere"
    copies = 1

    def __init__(self) -> None:
        self.exited = trio.Event()

    def last_lines(self, count: int = 0) -> list[str]:
        return []

    def owns_port(self, port: int) -> bool | None:
        return None

    async def stop(self, timeout_s: float) -> StopReport:
        return StopReport(Ending.STOPPED, 0.0)

    async def kill(self) -> StopReport:
        return StopReport(Ending.STOPPED, 0.0)

    async def copies_changed(self) -> int:
        return await trio.sleep_forever()


@asynccontextmanager
async def open_nothing(
    argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
) -> AsyncIterator[NoProcess]:
    """A Launcher that launches nothing."""
    yield NoProcess()
