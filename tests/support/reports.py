"""What a worker of pytest-xdist says on its way to the one who prints it."""

from __future__ import annotations

LINES = 15


def sendable(value: object) -> object:
    """The same with all texts as UTF-8 can have them. A worker ends that has a lone surrogate in
    a report: in a line of the log, say, that its test has made."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {sendable(key): sendable(entry) for key, entry in value.items()}
        case list():
            return [sendable(entry) for entry in value]
        case tuple():
            return tuple(sendable(entry) for entry in value)
    return value


class InternalErrors:
    """pytest prints them where they happen; the end of the output is what is looked at."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def add(self, error: BaseException) -> None:
        """A worker's has the whole traceback as its message."""
        self.ends.append("\n".join(f"{type(error).__name__}: {error}".splitlines()[-LINES:]))
