"""Sizes of memory as people read them."""

from __future__ import annotations

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def format_size(size_bytes: int) -> str:
    """`"6.1 GiB"`, `"512.0 MiB"`, `"100 B"`: one decimal, in the largest unit that it fills."""
    for unit, factor in _UNITS:
        # From 1023.95 on, one decimal would show 1024.0 of the smaller unit.
        if size_bytes >= factor * (1 - 0.05 / 1024):
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def format_over(size_bytes: int, limit_bytes: int) -> tuple[str, str]:
    """A size and the limit that it is over, rounded away from each other: they never read alike."""
    return format_size(_to_tenths(size_bytes, up=True)), format_size(_to_tenths(limit_bytes))


def _to_tenths(size_bytes: int, *, up: bool = False) -> int:
    factor = next((factor for _, factor in _UNITS if size_bytes >= factor), 1)
    if factor == 1:
        return size_bytes
    tenths = -(-size_bytes * 10 // factor) if up else size_bytes * 10 // factor
    return tenths * factor // 10
