"""Aftermath: what runs before this one have left that did not end in order, and that it is cleared.

The facts come from where things are cleared: `engine/process/runs.py` (processes), the store of
saved caches, the history. Here they become one line for the log, and `last_run` for those who ask.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from trio_gateway.engine.process.runs import LeftRun

log = logging.getLogger(__name__)


class LastRun(msgspec.Struct, frozen=True):
    """As `/gateway/engines` shows it. Times are Unix times. `ended_at` None: nobody saw the end.
    `ended`: engines that the run's reaper ended. `found`: those that still ran at this start, and
    were ended by it. `summary`: the line of the log."""

    pid: int
    source: str
    began_at: float
    ended_at: float | None
    machine_restarted: bool
    ended: tuple[str, ...]
    found: tuple[str, ...]
    removed_kv_files: int
    removed_kv_bytes: int
    history_unclosed: bool
    summary: str


class Aftermath:
    """`last_run` None: as far as can be seen, it ended in order."""

    def __init__(self) -> None:
        self.last_run: LastRun | None = None
        self._unclosed = False

    def look(self, history: Path | None) -> None:
        """Before the history is opened: what it has beside it then, its last user did not close."""
        self._unclosed = history is not None and Path(f"{history}-wal").exists()

    def tell(self, left: list[LeftRun], kv: tuple[int, int]) -> None:
        """Once all is cleared. `kv`: files that the store has removed, and their bytes."""
        for number, run in enumerate(left, 1):
            is_last = number == len(left)
            files, size = kv if is_last else (0, 0)
            unclosed = self._unclosed and is_last
            summary = in_words(run, files, size, unclosed=unclosed)
            log.warning("%s", summary)
            of = run.run
            self.last_run = LastRun(
                of.pid, of.source, of.began_at, of.ended_at, run.is_of_before, of.ended, run.found,
                files, size, unclosed, summary,
            )  # fmt: skip


def in_words(left: LeftRun, files: int, size: int, *, unclosed: bool) -> str:
    run = left.run
    if run.ended_at is not None:
        end = f"was killed, or crashed, at {_time(run.ended_at)}"
    elif left.is_of_before:
        end = "ended with the machine, which was started anew since"
    else:
        end = "was killed, with its reaper, nobody saw when"
    said = [f"the last run (pid {run.pid}, {run.source}, begun at {_time(run.began_at)}) {end}"]
    if run.ended:
        said.append(f"its reaper ended {_engines(run.ended)}")
    if left.found:
        said.append(f"{_engines(left.found)} still ran, and {_was(left.found)} ended now")
    if not run.ended and not left.found:
        said.append("none of its engines was left")
    if files:
        said.append(f"{files} file{'s' * (files > 1)} of saved caches ({_size(size)}) removed")
    if unclosed:
        said.append("its history was not closed; all that was written is there")
    return f"{'; '.join(said)}. All is cleared."


def _engines(names: tuple[str, ...]) -> str:
    return f"{len(names)} engine{'s' * (len(names) > 1)} ({', '.join(names)})"


def _was(names: tuple[str, ...]) -> str:
    return "was" if len(names) == 1 else "were"


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count} bytes"


def _time(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))
