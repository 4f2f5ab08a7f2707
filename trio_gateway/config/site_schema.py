"""The URLs of an engine that is elsewhere, and how they are balanced: frozen structs."""

from __future__ import annotations

import enum

import msgspec

from trio_gateway.config.wake_schema import WakeOnLan


class Balance(enum.Enum):
    """Which of several URLs gets a request."""

    IN_ORDER = "in_order"  # the first that works
    LEAST_LOADED = "least_loaded"  # of those that work


class SiteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Of one URL. `weight`: how much it does compared to the others; None: 1, and nothing is said
    about balance. `wake`, `wake_command`: as in EngineOptions."""

    url: str
    weight: float | None = None
    wake: WakeOnLan | None = None
    wake_command: tuple[str, ...] = ()
