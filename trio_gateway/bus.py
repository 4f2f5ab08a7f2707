"""Bus: tells those who listen what happened in the gateway, as it happens.

Whoever publishes knows nothing of who listens, and pays next to nothing while nobody does: 0.1 µs.
A listener is called at once, in the publisher's step: it notes what it needs, and never waits. One
that fails is a bug, which the log tells once; the publisher and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Bus:
    def __init__(self) -> None:
        self._listeners: dict[type, tuple[Callable[[Any], None], ...]] = {}
        self._told: set[tuple[str, type]] = set()  # which failures the log has

    def publish(self, happening: object) -> None:
        """Tell those who listen for its type; of what it is a subclass does not count."""
        for listener in self._listeners.get(type(happening), ()):
            try:
                listener(happening)
            except Exception as error:  # noqa: BLE001 - what happened is none of its making
                self._tell(listener, error)

    def _tell(self, listener: Callable[[Any], None], error: Exception) -> None:
        name = getattr(listener, "__qualname__", type(listener).__qualname__)
        if (failure := (name, type(error))) not in self._told:
            self._told.add(failure)  # before it is told: what is logged is published as well
            log.error("a bug in the gateway; please report it: %s", name, exc_info=error)

    def has_listeners(self, kind: type) -> bool:
        """Whether it is worth making one."""
        return kind in self._listeners

    def listen(self, kind: type[T], listener: Callable[[T], None]) -> None:
        """From now on."""
        self._listeners[kind] = (*self._listeners.get(kind, ()), listener)

    def unlisten(self, kind: type[T], listener: Callable[[T], None]) -> None:
        left = tuple(known for known in self._listeners[kind] if known != listener)
        if left:
            self._listeners[kind] = left
        else:
            del self._listeners[kind]

    @contextmanager
    def listening(self, kind: type[T], listener: Callable[[T], None]) -> Iterator[None]:
        """For as long as the block runs."""
        self.listen(kind, listener)
        try:
            yield
        finally:
            self.unlisten(kind, listener)
