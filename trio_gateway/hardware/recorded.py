"""Devices that a file describes: for tests, and to try what a machine without a GPU would do.

The file has JSON, and is read anew each time:

    [{"id": "cuda:0", "name": "A", "total_bytes": 8589934592, "free_bytes": 8589934592,
      "holders": [{"pid": 12, "name": "ComfyUI", "held_bytes": 1048576}]}]
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from trio_gateway.hardware.devices import Device, DeviceKind, Holder, Reading

VARIABLE = "TRIO_GATEWAY_DEVICES_FILE"  # of the environment; what it names takes the place of all


class _Described(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    total_bytes: int
    free_bytes: int
    name: str = ""
    holders: tuple[Holder, ...] = ()
    shares_ram: bool = False


class Recorded:
    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Reading:
        try:
            described = msgspec.json.decode(self._file.read_bytes(), type=list[_Described])
            return Reading(tuple(map(_device, described)))
        except (OSError, ValueError) as error:
            return Reading((), (f"{self._file}: {error}",))


def _device(described: _Described) -> Device:
    return Device(
        id=described.id,
        kind=DeviceKind(described.id.partition(":")[0]),
        name=described.name or described.id,
        total_bytes=described.total_bytes,
        free_bytes=described.free_bytes,
        holders=described.holders,
        shares_ram=described.shares_ram,
        selector=described.id.partition(":")[2],
    )
