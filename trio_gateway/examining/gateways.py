"""Gateways that run on this machine, whoever started them: each has a reaper."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import psutil

from trio_gateway.examining.seen import SeenGateway

_REAPER = "reaper_program.py"
_HELPER = re.compile(r"[/\\]trio_gateway[/\\].*\.py$")


def running_gateways() -> Iterator[SeenGateway]:
    """As far as this user can see them. Blocks: reads the process table."""
    own, found = os.getpid(), set[int]()
    for process in psutil.process_iter():
        try:
            if any(word.endswith(_REAPER) for word in process.cmdline()):
                found.add(process.ppid())
        except (psutil.Error, OSError):
            continue
    for pid in sorted(found - {own, 0, 1}):  # 1 has adopted one whose gateway is gone
        try:
            engines = [child for child in psutil.Process(pid).children() if _is_engine(child)]
            yield SeenGateway(pid, len(engines), sum(map(_held, engines)))
        except (psutil.Error, OSError):
            continue


def _is_engine(process: psutil.Process) -> bool:
    try:
        return not any(_HELPER.search(word) for word in process.cmdline()[:4])
    except (psutil.Error, OSError):
        return False


def _held(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.Error, OSError):
        return 0
