"""Holdings: which applications of this gateway have an engine, and which were left behind. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Place = TypeVar("Place")


class Left(Generic[Place]):
    """That one was left behind: each time is another."""

    def __init__(self, place: Place) -> None:
        self.place = place


class Holdings(Generic[Place]):
    """By name. `Place`: the cluster that one is on.

    Args:
        tell: called whenever one is left behind.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._held = set[str]()
        self._left: dict[str, Left[Place]] = {}
        self._tell = tell

    def holds(self, name: str) -> bool:
        """Whether an engine has it now."""
        return name in self._held

    def take(self, name: str) -> None:
        """An engine has it from now on."""
        self._held.add(name)
        self._left.pop(name, None)

    def give_back(self, name: str, left_at: Place | None) -> None:
        """The engine is over; `left_at`: where the application may be still."""
        self._held.discard(name)
        if left_at is not None:
            self._left[name] = Left(left_at)
            self._tell()

    def forget(self, seen: Mapping[str, Left[Place]]) -> None:
        """These have been taken out, unless they were left behind again meanwhile."""
        self._left = {name: at for name, at in self._left.items() if seen.get(name) is not at}

    @property
    def left(self) -> dict[str, Left[Place]]:
        return dict(self._left)
