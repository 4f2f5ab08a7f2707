"""A name for several models: the frozen structs of the table `choices`."""

from __future__ import annotations

import enum

import msgspec


class Strategy(enum.Enum):
    """Which of the models a request gets. `LOADED`: the first whose engine runs. `SPILL`: the next
    one where those before it have enough to do. `FITS`: the first that holds what it needs."""

    LOADED = "loaded"
    SPILL = "spill"
    FITS = "fits"


class Member(msgspec.Struct, frozen=True):
    """`model`: the model's own name. `name`: as a request would name it, with a variant or a
    context behind it. `is_late`: nobody has it yet; another gateway may."""

    model: str
    name: str
    is_late: bool = False


class ChoiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`spill_after`: requests that a model has when the next one gets some; None: as many as its
    engine takes at a time."""

    name: str
    members: tuple[Member, ...]
    strategy: Strategy = Strategy.LOADED
    spill_after: int | None = None
    hidden: bool = False
    description: str = ""
