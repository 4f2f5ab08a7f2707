"""Names of processes, for sentences about who holds memory."""

from __future__ import annotations

import psutil


def process_name(pid: int) -> str:
    """Empty: it is gone, or not of this container."""
    try:
        return psutil.Process(pid).name()
    except (psutil.Error, OSError, ValueError):
        return ""
