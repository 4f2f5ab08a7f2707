"""Apple's GPU, which shares the machine's memory."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable

import psutil

from trio_gateway.hardware.devices import Device, DeviceKind

# What Metal lets programs have where nobody has set `iogpu.wired_limit_mb`: two thirds, and three
# quarters of more than 36 GiB.
_LARGE = 36 * 2**30

Sysctl = Callable[[str], str]


def sysctl(name: str) -> str:
    """Empty: the system has no such value."""
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name],
            env={},
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class Apple:
    """What does not change is asked for once."""

    def __init__(
        self,
        ask: Sysctl = sysctl,
        available: Callable[[], int] = lambda: int(psutil.virtual_memory().available),
        *,
        is_here: bool | None = None,
    ) -> None:
        self._ask, self._available = ask, available
        self._is_here = _is_apple() if is_here is None else is_here
        self._name, self._total = "", 0

    def read(self) -> list[Device]:
        if not self._is_here:
            return []
        if not self._total:
            self._name = self._ask("machdep.cpu.brand_string") or "Apple GPU"
            self._total = self._usable()
        if not self._total:
            return []
        return [
            Device(
                id="metal",
                kind=DeviceKind.METAL,
                name=self._name,
                total_bytes=self._total,
                free_bytes=min(self._available(), self._total),
                shares_ram=True,
            )
        ]

    def _usable(self) -> int:
        memory, limit = self._ask("hw.memsize"), self._ask("iogpu.wired_limit_mb")
        total = int(memory) if memory.isdecimal() else 0
        if limit.isdecimal() and int(limit):
            return min(int(limit) * 2**20, total)
        return total * 3 // 4 if total > _LARGE else total * 2 // 3


def _is_apple() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"
