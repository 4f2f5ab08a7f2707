"""Events about engines that run elsewhere: on a cluster, or on a machine that may sleep."""

from __future__ import annotations

import msgspec


class SlotsChanged(msgspec.Struct, frozen=True):
    """A ready engine works on so many requests at a time now. More may have been granted."""

    engine: int
    slots: int


class EngineWaking(msgspec.Struct, frozen=True):
    """Its machine sleeps, and is woken from now on; the engine is ready once that answers."""

    engine: int


ElsewhereEvent = SlotsChanged | EngineWaking
