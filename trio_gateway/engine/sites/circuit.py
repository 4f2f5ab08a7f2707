"""Circuit: whether a site gets requests after it has failed. Pure: `now` is an argument.

    untried ──works──▶ works ◀──a request went well──┐
       │                 │                           │
       └──────fails──────┴──▶ open ──pause is over──▶ half-open
                               ▲                     │
                               └────────fails────────┘

An open one is left alone for a pause, which doubles with each failure until a request goes well.
Then a health check asks it, as nobody waits for that. If only health checks had failed, the answer
closes the circuit. If a request had, the answer says little: one request is let in, and the others
go elsewhere until that one is answered.

This is about sites that others can stand in for. Without any, requests try the open ones.
"""

from __future__ import annotations

import enum
import math

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class CircuitState(enum.Enum):
    """Of a site, as it is shown."""

    UNTRIED = "untried"
    WORKS = "works"
    OPEN = "open"  # it has failed, and is left alone
    HALF_OPEN = "half-open"  # it is tried again


class Use(enum.IntEnum):
    """What a site is good for, the best first."""

    GOOD = 0
    UNKNOWN = 1
    LAST_RESORT = 2


class Circuit:
    """`since`: when it came to be as it is. `why`: the last failure, if it does not work.
    `retry_at`: when its pause is over.

    Args:
        check_every_s: how often its health is looked at. What only such looks have found bad is not
            left alone for longer.
    """

    def __init__(self, check_every_s: float = math.inf) -> None:
        self._check_every_s = check_every_s
        self._state = CircuitState.UNTRIED  # OPEN until a health check or a request went well
        self.since: float | None = None
        self.why = ""
        self.retry_at = -math.inf
        self._failures = 0
        self._by_request = False  # that failed last
        self._has_answered = False  # a health check, since the pause
        self._on_trial = False

    def state(self, now: float) -> CircuitState:
        if self._state is CircuitState.OPEN and now >= self.retry_at:
            return CircuitState.HALF_OPEN
        return self._state

    @property
    def works(self) -> bool | None:
        """None: it has not been tried."""
        if self._state is CircuitState.UNTRIED:
            return None
        return self._state is CircuitState.WORKS

    def use(self, now: float) -> Use:
        """What it is good for to one more request."""
        if self._state is CircuitState.WORKS:
            return Use.GOOD
        if self._state is CircuitState.UNTRIED:
            return Use.UNKNOWN
        return Use.GOOD if self._awaits_trial(now) else Use.LAST_RESORT

    def may_check(self, now: float) -> bool:
        """Whether a health check may ask it."""
        return self.state(now) is not CircuitState.OPEN

    def awaits_check(self, now: float) -> bool:
        """Whether a health check is to ask it now, before it is the turn of all."""
        return self.state(now) is CircuitState.HALF_OPEN and not self._has_answered

    def begin(self, now: float) -> bool:
        """A request is sent there. Whether it is the one that is let in: `end_trial` when it is
        over, however it went."""
        if self._awaits_trial(now):
            self._on_trial = True
            return True
        return False

    def end_trial(self) -> None:
        self._on_trial = False

    def note_good(self, now: float, *, of_request: bool) -> bool:
        """Whether it has come to work by that."""
        if of_request:
            self._failures = 0
        elif self._state is CircuitState.OPEN:
            if now < self.retry_at:
                return False  # it was asked before it failed
            if self._by_request:
                self._has_answered = True
                return False
        if self._state is CircuitState.WORKS:
            return False
        self._state, self.since, self.why = CircuitState.WORKS, now, ""
        return True

    def note_bad(self, now: float, why: str, *, of_request: bool) -> bool:
        """Whether a pause begins with that. Requests that fail together are one failure."""
        self.why = why
        if self._state is CircuitState.OPEN:
            if now < self.retry_at:
                return False
        else:
            self._state, self.since = CircuitState.OPEN, now
        self._failures += 1
        self._by_request, self._has_answered = of_request, False
        self.retry_at = now + self._pause_s
        return True

    @property
    def _pause_s(self) -> float:
        most_s = LONGEST_PAUSE_S if self._by_request else min(LONGEST_PAUSE_S, self._check_every_s)
        return min(FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10), most_s)

    def _awaits_trial(self, now: float) -> bool:
        is_half_open = self.state(now) is CircuitState.HALF_OPEN
        return is_half_open and self._has_answered and not self._on_trial
