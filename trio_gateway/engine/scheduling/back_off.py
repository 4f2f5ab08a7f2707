"""BackOff: how long a variant that keeps failing is left alone before its next start.

A failed start is followed by 1, 2, 4 … 30 s. An engine that gets ready and then ends by itself may
start again at once, for the sake of the requests that it lost; if the next one ends so as well,
within a minute of its start, the same pauses follow.

Requests wait through what is left of a pause if that is short; otherwise they are told at once.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
GOOD_SERVICE_S = 60.0
WAITED_OUT_S = 5.0  # the most of a pause that requests wait through

Key = TypeVar("Key", bound=Hashable)


class Pause(msgspec.Struct, frozen=True):
    """No start before `until`; `failures` in a row, the last for `reason`, after `output`."""

    until: float
    failures: int
    reason: str
    output: tuple[str, ...] = ()

    def is_waited_out(self, now: float) -> bool:
        """Whether requests wait for its end."""
        return self.until <= now + WAITED_OUT_S


class BackOff(Generic[Key]):
    """Pauses by variant. Times are the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._pauses: dict[Key, Pause] = {}

    def pause(self, key: Key, now: float) -> Pause | None:
        """The pause that holds now, if any."""
        found = self._pauses.get(key)
        return found if found is not None and now < found.until else None

    def has_failed(self, key: Key) -> bool:
        """Whether its last engine failed, however long ago."""
        return key in self._pauses

    def start_failed(self, key: Key, now: float, reason: str, output: tuple[str, ...] = ()) -> None:
        self._note(key, now, reason, output, free=0)

    def engine_ended(
        self,
        key: Key,
        now: float,
        reason: str,
        output: tuple[str, ...] = (),
        *,
        served_s: float,
    ) -> None:
        """A ready engine ended by itself, `served_s` after it got ready."""
        if served_s >= GOOD_SERVICE_S:
            self._pauses.pop(key, None)
        self._note(key, now, reason, output, free=1)

    def forget(self, key: Key) -> None:
        """Its engines are started otherwise from now on: they may be good ones."""
        self._pauses.pop(key, None)

    def engine_stopped(self, key: Key) -> None:
        """A ready engine ended because it was told to: it was a good one."""
        self._pauses.pop(key, None)

    def _note(
        self, key: Key, now: float, reason: str, output: tuple[str, ...], *, free: int
    ) -> None:
        last = self._pauses.get(key)
        failures = last.failures + 1 if last else 1
        doubled = failures - 1 - free
        pause_s = min(FIRST_PAUSE_S * 2**doubled, LONGEST_PAUSE_S) if doubled >= 0 else 0.0
        self._pauses[key] = Pause(now + pause_s, failures, reason, output)
