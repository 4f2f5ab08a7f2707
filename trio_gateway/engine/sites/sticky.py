"""Sticky: which site has answered the last turn of each conversation. Pure."""

from __future__ import annotations

from collections import OrderedDict

MOST = 4096  # conversations: about 1 MB


class Sticky:
    """By affinity keys. Those that were not heard of for the longest are forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._sites: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sites)

    def get(self, conversation: bytes | None) -> int | None:
        """The number of its site; None: it is new."""
        return None if conversation is None else self._sites.get(conversation)

    def note(self, conversation: bytes | None, site: int) -> None:
        """The site has answered a turn of it."""
        if conversation is None:
            return
        self._sites[conversation] = site
        self._sites.move_to_end(conversation)
        if len(self._sites) > self._most:
            self._sites.popitem(last=False)
