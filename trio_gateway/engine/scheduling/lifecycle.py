"""The states of an engine and the moves between them. Nothing else changes an engine's state.

    starting ──► ready ◄─► draining ──► stopping ──► stopped
        │          │           │            │
        │          └───────────┼──► (also straight to stopping: nobody holds a lease)
        └──────────────────────┼──► (a start that nobody wants any more is stopped as well)
                               └──► failed, from each of the first four

An engine is *starting* from the moment it is decided on, *ready* once its own process answers
its health endpoint, *draining* while it has leases but gets no new ones (and ready again if its
room is no longer needed), *stopping* from its SIGTERM on. *stopped* and *failed* are final: the
next start of a variant is another engine.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class EngineState(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


TRANSITIONS: Mapping[EngineState, frozenset[EngineState]] = {
    EngineState.STARTING: frozenset({EngineState.READY, EngineState.STOPPING, EngineState.FAILED}),
    EngineState.READY: frozenset({EngineState.DRAINING, EngineState.STOPPING, EngineState.FAILED}),
    EngineState.DRAINING: frozenset({EngineState.READY, EngineState.STOPPING, EngineState.FAILED}),
    EngineState.STOPPING: frozenset({EngineState.STOPPED, EngineState.FAILED}),
    EngineState.STOPPED: frozenset(),
    EngineState.FAILED: frozenset(),
}


class IllegalTransition(Exception):
    """A move that the table does not have: a bug in the gateway, never in an engine."""


def move(current: EngineState, to: EngineState) -> EngineState:
    """The new state.

    Raises:
        IllegalTransition: the table has no such move.
    """
    if to not in TRANSITIONS[current]:
        raise IllegalTransition(f"{current.value} → {to.value}")
    return to
