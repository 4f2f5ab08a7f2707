"""How the log looks, under either command, and the last lines of it, for those who look on."""

from __future__ import annotations

import enum
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

import msgspec

from trio_gateway.lines import ENGINE_LOGGERS, GATEWAY, LogLine, new_lines
from trio_gateway.stop_signals import forget_dead_output

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
LOG_TIME = "%H:%M:%S"
FORMAT_VARIABLE = "TRIO_GATEWAY_LOG_FORMAT"


class LogFormat(enum.Enum):
    TEXT = "text"
    JSON = "json"


class _Handler(logging.StreamHandler[TextIO]):
    """A terminal may close, and what reads a pipe may end: then there is nobody left to tell."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if isinstance(sys.exception(), OSError):
            forget_dead_output()
        else:
            super().handleError(record)


class _JsonFormatter(logging.Formatter):
    """One object a line: `time` (ISO 8601, UTC), `level`, `logger`, `message`; and `exception`, a
    traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _sendable(record.getMessage()),
        }
        if record.exc_info is not None:
            said["exception"] = _sendable(self.formatException(record.exc_info))
        return msgspec.json.encode(said).decode()


class LineKeeper(logging.Handler):
    """Keeps the last lines; what engines print is kept elsewhere. `listeners` are told of each, in
    whichever thread it is logged, and must not log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = new_lines()
        self.listeners: list[Callable[[LogLine], None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.DEBUG and record.name.startswith(ENGINE_LOGGERS):
            return
        text = _sendable(self.format(record))
        line = LogLine(round(record.created, 3), record.levelname, GATEWAY, text)
        self.lines.append(line)
        for listener in self.listeners:
            listener(line)


def configure_logging(*, verbose: bool = False, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Log what the gateway says to stderr; `verbose` adds what the engines print.

    Only our own logger gets a handler: hypercorn's has one of its own, and httpx would log each
    health request.
    """
    handler = _Handler()
    is_json = log_format is LogFormat.JSON
    handler.setFormatter(_JsonFormatter() if is_json else logging.Formatter(LOG_FORMAT, LOG_TIME))
    ours = _ours()
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    ours.addHandler(handler)
    ours.addHandler(LineKeeper())
    ours.propagate = False


@contextmanager
def line_keeper() -> Iterator[LineKeeper]:
    """The one that `configure_logging` has made; otherwise one for as long as the block runs."""
    for handler in _ours().handlers:
        if isinstance(handler, LineKeeper):
            yield handler
            return
    keeper = LineKeeper()
    _ours().addHandler(keeper)
    try:
        yield keeper
    finally:
        _ours().removeHandler(keeper)


def _sendable(text: str) -> str:
    """Lone surrogates are in names of files that are not UTF-8, and in no JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def _ours() -> logging.Logger:
    return logging.getLogger("trio_gateway")
