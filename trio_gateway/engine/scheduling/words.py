"""Words for memory that others hold, the same in a log and in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from trio_gateway.config.sizes import format_size
from trio_gateway.engine.scheduling.memory_events import (
    Holding,
)
from trio_gateway.engine.scheduling.pool_memory import Shortage

_NAMED = 3  # those that hold most; a desktop has a dozen


def held_by(holders: Sequence[Holding]) -> str:
    """`" (ComfyUI 9.5 GiB, firefox 0.4 GiB)"`; empty where the driver names nobody."""
    known = [holder for holder in holders if holder.name]
    named = ", ".join(map(_named, known[:_NAMED]))
    more = ", and others" if len(known) > _NAMED else ""
    return f" ({named}{more})" if named else ""


def lack(shortage: Shortage, name: str) -> str:
    """What a start of this model waits for, as a sentence has it."""
    where = f" of {shortage.place}" if shortage.place else ""
    needs = shortage.needs_bytes
    needed = "more memory than is free" if needs is None else f"{format_size(needs)}{where}"
    said = [f"{name} needs {needed}, {format_size(shortage.has_bytes)} can be had"]
    if shortage.yielded_bytes:
        said.append(f"{format_size(shortage.yielded_bytes)} are yielded to another program")
    if shortage.others_bytes and (shortage.holders or not shortage.yielded_bytes):
        others = format_size(shortage.others_bytes)
        said.append(f"other programs hold {others}{held_by(shortage.holders)}")
    return "; ".join(said)


def _named(holder: Holding) -> str:
    size = holder.held_bytes
    return holder.name if size is None else f"{holder.name} {format_size(size)}"
