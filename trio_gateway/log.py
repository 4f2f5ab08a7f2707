"""How the log looks, under either command."""

from __future__ import annotations

import logging

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
LOG_TIME = "%H:%M:%S"


def configure_logging(*, verbose: bool = False) -> None:
    """Log what the gateway says to stderr; `verbose` adds what the engines print.

    Only our own logger gets a handler: hypercorn's has one of its own, and httpx would log each
    health request.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT, LOG_TIME))
    ours = logging.getLogger("trio_gateway")
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    ours.addHandler(handler)
    ours.propagate = False
