"""Sleep: whether the machine sleeps that an engine elsewhere runs on, as far as that shows here."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from trio_gateway.engine.clients.facts import Health
from trio_gateway.engine.errors import EngineLost, EngineUnreachable, NotTrusted, OutOfSockets

# By URL, how the last try there got no answer at all; None: it got one.
Found = Mapping[str, EngineLost | None]


class Sleep:
    """Of one engine, whose machine can be woken. Each event is set once, in this order.

    `must_wake`: at the engine's start nothing answered. `awake`: something does, so that requests
    may go there. `fell_asleep`: a request found nothing there: this engine is over, and the start
    of the next one wakes the machine. `last`: what was found there, for errors.
    """

    def __init__(self) -> None:
        self.must_wake, self.awake, self.fell_asleep = trio.Event(), trio.Event(), trio.Event()
        self.last = ""

    def looked(self, health: Health, found: Found, *, works: bool) -> Health:
        """What a look at all of the engine's URLs means. `works`: one of them takes requests."""
        is_silent = _is_silent(found)
        # What answers and does not work is no reason to wake it. One that was woken may answer
        # before it can work.
        if works or not (is_silent or self.must_wake.is_set()):
            self.awake.set()
        if self.awake.is_set():
            return health
        faults = (f"{url}: {lost or 'it does not work yet'}" for url, lost in found.items())
        self.last = "; ".join(faults)
        self.must_wake.set()
        return Health(False, self.last, silent=is_silent)

    def request_failed(self, found: Found, *, is_answering: bool) -> None:
        """No URL gave a request an answer. `is_answering`: another request has one, so something is
        awake."""
        if _is_silent(found) and not is_answering:
            self.fell_asleep.set()


def was_woken(sleep: Sleep | None) -> bool:
    """Whether the machine had to be, at the engine's start. None: it cannot be."""
    return sleep is not None and sleep.must_wake.is_set()


def has_fallen_asleep(sleep: Sleep | None) -> bool:
    """Since it was ready. None: it is not known to sleep."""
    return sleep is not None and sleep.fell_asleep.is_set()


def _is_silent(found: Found) -> bool:
    """Whether nothing is there at all. A name that is unknown may be one that its machine tells."""
    return all(
        isinstance(lost, EngineUnreachable) and not isinstance(lost, OutOfSockets | NotTrusted)
        for lost in found.values()
    )
