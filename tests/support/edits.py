"""What is done to the configuration of a simulated world."""

from __future__ import annotations

import enum


class Edit(enum.Enum):
    """What somebody does to a configuration, about a model or a pool."""

    NOTHING = enum.auto()
    REMOVE = enum.auto()
    RESTORE = enum.auto()  # all models, as they were
    CHANGE = enum.auto()
    MOVE = enum.auto()
    RETIME = enum.auto()
    SHRINK = enum.auto()
    WIDEN = enum.auto()
    DIVIDE = enum.auto()
    WATCH = enum.auto()
