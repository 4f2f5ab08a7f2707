"""The devices of this machine: what each vendor's module finds, and the RAM."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trio_gateway.hardware.amd import Amd
from trio_gateway.hardware.apple import Apple
from trio_gateway.hardware.devices import Device, Hardware, NotReadable, Reading
from trio_gateway.hardware.nvidia import Nvidia
from trio_gateway.hardware.ram import Ram
from trio_gateway.hardware.recorded import VARIABLE, Recorded

log = logging.getLogger(__name__)


class Machine:
    """Cheap to make: a vendor's library is loaded with the first reading. One that is kept asks
    for what does not change only once."""

    def __init__(
        self,
        nvidia: Nvidia | None = None,
        amd: Amd | None = None,
        apple: Apple | None = None,
        ram: Ram | None = None,
    ) -> None:
        self._gpus: Sequence[tuple[str, Callable[[], list[Device]]]] = (
            ("NVIDIA", (nvidia or Nvidia()).read),
            ("AMD", (amd or Amd()).read),
            ("Apple", (apple or Apple()).read),
        )
        self._ram = ram or Ram()

    def read(self) -> Reading:
        devices: list[Device] = []
        faults: list[str] = []
        for vendor, read in self._gpus:
            try:
                devices += read()
            except NotReadable as error:
                faults.append(str(error))
            except Exception as error:  # whatever a driver comes up with
                log.debug("%s's devices cannot be read", vendor, exc_info=True)
                faults.append(f"{vendor}'s devices cannot be read: {error!r}")
        try:
            devices.append(self._ram.read())
        except Exception as error:  # noqa: BLE001 - whatever a system call comes up with
            faults.append(f"the machine's memory cannot be read: {error!r}")
        return Reading(tuple(devices), tuple(faults))


def this_machine(environ: Mapping[str, str] = os.environ) -> Hardware:
    """The devices of this machine, or those of the file that a test names."""
    if file := environ.get(VARIABLE):
        return Recorded(Path(file))
    return Machine()
