"""The whole search: places in, a plan and what was left out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.finding.candidates import gather
from trio_gateway.finding.engines import Engines
from trio_gateway.finding.left import Left
from trio_gateway.finding.machine import Room, room_of
from trio_gateway.finding.models import models_of
from trio_gateway.finding.places import Place
from trio_gateway.finding.plan import Plan, plan
from trio_gateway.hardware.devices import Reading


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`left`: all that was, also what the plan has no memory for. `watched`: the folders and files
    that another look would look at."""

    plan: Plan
    room: Room
    left: tuple[Left, ...]
    watched: tuple[str, ...]


def search(places: Sequence[Place], engines: Engines, reading: Reading) -> Found:
    """Blocks. Raises nothing: what cannot be used is in `left`."""
    gathered = gather(places)
    models, no_models = models_of(gathered.candidates)
    room = room_of(reading, engines.engine)
    is_embedded = engines.engine is not None and engines.engine.is_embedded
    planned = plan(models, room.memory_bytes, may_shrink_cache=not is_embedded)
    return Found(
        plan=planned,
        room=room,
        left=(*gathered.left, *no_models, *planned.left),
        watched=gathered.watched,
    )
