"""How long a test waits: longer on a busy machine, and never so long that pytest-timeout ends the
test, which would not say what it waited for. `tests/conftest.py` tells when a test's time begins.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

SAYING_S = 10.0  # of the test's own limit: for what then says what was seen, and for the end

_ends = math.inf


def limit_begins(limit_s: float) -> None:
    global _ends
    _ends = time.monotonic() + limit_s


def limit_ends() -> None:
    global _ends
    _ends = math.inf


def left_s() -> float:
    """For waiting, of the test that runs now. Without a limit, as in a benchmark, for ever."""
    return max(_ends - time.monotonic() - SAYING_S, 0.0)


def patient(seconds: float) -> float:
    """A limit that holds on a machine with nothing else to do, as it is on this one now."""
    return seconds * (1 + max(os.getloadavg()[0], _runnable()) / (os.cpu_count() or 1))


def is_too_long(waited_s: float, within_s: float) -> bool:
    """Whether a wait ends that on a machine with nothing else to do would last `within_s`."""
    return left_s() == 0 or (waited_s > within_s and waited_s > patient(within_s))


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether it becomes true in time, on a machine with nothing else to do. Polled: what it asks
    is another process's state."""
    begun = time.monotonic()
    while not (result := condition()):
        if is_too_long(time.monotonic() - begun, within_s):
            break
        time.sleep(0.005)
    return result


def _runnable() -> int:
    """Threads that want a processor right now: the average of a minute knows nothing of a load that
    has just begun."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except OSError:  # Linux only
        return 0
