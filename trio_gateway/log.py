"""How the log looks, under either command."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from trio_gateway.stop_signals import forget_dead_output

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
LOG_TIME = "%H:%M:%S"


class _Handler(logging.StreamHandler[TextIO]):
    """A terminal may close, and what reads a pipe may end: then there is nobody left to tell."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if isinstance(sys.exception(), OSError):
            forget_dead_output()
        else:
            super().handleError(record)


def configure_logging(*, verbose: bool = False) -> None:
    """Log what the gateway says to stderr; `verbose` adds what the engines print.

    Only our own logger gets a handler: hypercorn's has one of its own, and httpx would log each
    health request.
    """
    handler = _Handler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT, LOG_TIME))
    ours = logging.getLogger("trio_gateway")
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    ours.addHandler(handler)
    ours.propagate = False
