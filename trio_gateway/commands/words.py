"""Numbers as people read them: times, sizes, speeds. Pure."""

from __future__ import annotations

import time

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
NOTHING = "-"


def seconds(value: float | None) -> str:
    """`0.42 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if value is None:
        return NOTHING
    if value < 10:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(count: int | None) -> str:
    """`512 B`, `1.5 GiB`."""
    if count is None:
        return NOTHING
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def speed(value: float | None) -> str:
    """Tokens a second."""
    if value is None:
        return NOTHING
    return f"{value:.1f} t/s" if value < 100 else f"{value:.0f} t/s"


def count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def clock(at_s: float) -> str:
    """The time of day of a Unix time, here."""
    return time.strftime("%H:%M:%S", time.localtime(at_s))
