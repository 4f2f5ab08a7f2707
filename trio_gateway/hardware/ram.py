"""The machine's memory, or as much of it as a container's limit leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from trio_gateway.hardware.devices import Device, DeviceKind

_NO_LIMIT = 2**60  # version 1 says "none" as a number about as large as there are


class Ram:
    """`root`: where `sys` and `proc` are, for the limits of control groups."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self) -> Device:
        memory = psutil.virtual_memory()
        total, free, name = int(memory.total), int(memory.available), "the machine's memory"
        for limit, left in self._limits():
            if limit < total:
                total, name = limit, "the memory that a control group allows"
            free = min(free, left)
        return Device(
            id="cpu",
            kind=DeviceKind.CPU,
            name=name,
            total_bytes=total,
            free_bytes=max(min(free, total), 0),
            shares_ram=True,
        )

    def _limits(self) -> Iterator[tuple[int, int]]:
        """Of each control group that this process is in, its limit and what is left of it."""
        try:
            lines = (self._root / "proc/self/cgroup").read_text().splitlines()
        except OSError:
            return
        mount = self._root / "sys/fs/cgroup"
        for line in lines:
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if not controllers:
                names = "memory.max", "memory.current", "inactive_file"
                yield from _of_groups(mount, path, *names)
            elif "memory" in controllers.split(","):
                names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
                yield from _of_groups(mount / "memory", path, *names)


def _of_groups(
    mount: Path, path: str, limit_file: str, used_file: str, cache_key: str
) -> Iterator[tuple[int, int]]:
    """The group and those around it; of a container, which may not see its own path, the mount."""
    folder = mount / path.lstrip("/")
    if not folder.is_dir() or ".." in folder.parts:
        folder = mount
    while True:
        limit = _number(folder / limit_file)
        if limit is not None and limit < _NO_LIMIT:
            used = (_number(folder / used_file) or 0) - _cached(folder / "memory.stat", cache_key)
            yield limit, limit - max(used, 0)
        if folder == mount:
            return
        folder = folder.parent


def _number(file: Path) -> int | None:
    """None: there is no such file, or no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _cached(file: Path, key: str) -> int:
    """Of what the group uses, files that are given back when somebody wants the memory."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    found = (line.split()[1] for line in lines if line.startswith(f"{key} "))
    return int(next(found, "0"))
