"""What can go wrong between the gateway and an engine: the engine lost, or the exchange aborted."""

from __future__ import annotations

import errno
import os


class EngineLost(Exception):
    """The engine is gone, or is not what it should be. A request may be tried elsewhere. `output`:
    its last lines, if they are the cause."""

    def __init__(self, message: str = "", output: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.output = output


class EngineUnreachable(EngineLost):
    """Nothing accepts connections at the engine's address."""


class OutOfSockets(EngineUnreachable):
    """The gateway itself cannot open another connection: this says nothing about the engine."""


class NotTrusted(EngineUnreachable):
    """Something accepts connections there, and TLS with it fails."""


class EngineSilent(EngineLost):
    """The engine gave no answer in time."""


class EngineDisconnected(EngineLost):
    """The engine closed the connection before its answer was complete."""


class EngineTalksGarbage(EngineLost):
    """The engine's answer is not HTTP."""


class KeyRefused(Exception):
    """None of an engine's places takes the gateway's key; the message names them. It will not be
    another answer if it is asked again."""


class ExchangeAborted(Exception):
    """The gateway itself ended the exchange; the message says why."""


class AnswerEnded(ExchangeAborted):
    """The answer had its time, and others wait: `longest_answer`."""


class EngineUnloaded(ExchangeAborted):
    """The engine was stopped on request, without waiting for its leases."""


# Statuses by which an engine says that it wants another key than it was sent, if any.
KEY_REFUSED = frozenset({401, 403})

# Errors of the machine or the gateway's own limits, met before the engine had any part in it.
OWN_LIMITS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


def out_of_sockets(error: OSError) -> str:
    """One of OWN_LIMITS, in words that name the limit."""
    return f"the gateway cannot open a socket: {os.strerror(error.errno or 0)} (see `ulimit -n`)"
