"""SlotsChanged: an event about an engine that is several, which come and go with the load."""

from __future__ import annotations

import msgspec


class SlotsChanged(msgspec.Struct, frozen=True):
    """A ready engine works on so many requests at a time now. More may have been granted."""

    engine: int
    slots: int
