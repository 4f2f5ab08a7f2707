"""Touched: of which models something has changed. Decides nothing.

An event concerns one model, and whatever is known of the others stands. So each part that looks at
models keeps a list of those that it has to look at again, and each change gets into all of these.
"""

from __future__ import annotations

from collections.abc import Iterable


class Touched:
    """A model is named here when one of its tickets, engines or leases is another than before.

    Each reader has a list, and empties it as it likes; `spread` brings the lists up to date.
    """

    def __init__(self) -> None:
        self._fresh: set[str] = set()
        self._lists: list[set[str]] = []
        self.add = self._fresh.add  # of one model

    def new_list(self) -> set[str]:
        listed: set[str] = set()
        self._lists.append(listed)
        return listed

    def add_all(self, models: Iterable[str]) -> None:
        self._fresh.update(models)

    def spread(self) -> None:
        if self._fresh:
            for listed in self._lists:
                listed |= self._fresh
            self._fresh.clear()
