"""How the log looks, under either command."""

from __future__ import annotations

import logging

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
LOG_TIME = "%H:%M:%S"


def configure_logging(*, verbose: bool = False) -> None:
    """Log to stderr; `verbose` adds what the engines print."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format=LOG_FORMAT, datefmt=LOG_TIME)
    for chatty in ("httpx", "httpcore"):  # a line for each health request
        logging.getLogger(chatty).setLevel(logging.WARNING)
