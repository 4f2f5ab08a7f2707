"""Seen: what was found on this machine. Pure; `probes.py` finds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from trio_gateway.config.missing import Missing
from trio_gateway.engine.loadable import ProgramKey, Said
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.gguf.header import GgufHeader
from trio_gateway.hardware.devices import Reading


class SeenFile(msgspec.Struct, frozen=True):
    """A model's file that is there. `fault`: why no engine can use it. `projectors`: files beside
    it that look like one for images."""

    header: GgufHeader | None = None
    fault: str = ""
    projectors: tuple[str, ...] = ()


class SeenFolder(msgspec.Struct, frozen=True):
    """`fault`: why nothing can be written there. `free_bytes` None: not known."""

    fault: str = ""
    free_bytes: int | None = None


class SeenGateway(msgspec.Struct, frozen=True):
    """A gateway that runs here. `engines`: how many it has, and `held_bytes` what they hold, as far
    as that can be seen."""

    pid: int
    engines: int = 0
    held_bytes: int = 0


class SeenPort(msgspec.Struct, frozen=True):
    """An address that cannot be listened on. `holder`: who has it; empty: nobody, and `fault` says
    why not. `is_gateway`: a gateway answers there."""

    fault: str
    holder: str = ""
    pid: int | None = None
    is_gateway: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """`files`: by path, those of models that are there. `ports`: by `host:port`, those that are
    taken or wrong. `unreachable`: by URL, why. `memory`: bytes that an engine of the variant is
    expected to hold, and where the number is from. `open_files`: the most that this process may
    have. `idle_gpus`: programs that use no GPU although there is one."""

    missing: tuple[Missing, ...] = ()
    readable: tuple[str, ...] = ()
    programs: Mapping[ProgramKey, Said] = {}
    idle_gpus: frozenset[ProgramKey] = frozenset()
    files: Mapping[Path, SeenFile] = {}
    ports: Mapping[str, SeenPort] = {}
    unreachable: Mapping[str, str] = {}
    folders: Mapping[str, tuple[Path, SeenFolder]] = {}
    gateways: tuple[SeenGateway, ...] = ()
    reading: Reading = Reading(())
    memory: Mapping[VariantKey, tuple[int, str]] = {}
    open_files: int = 1024**2
    tls_fault: str = ""

    @property
    def holders(self) -> list[str]:
        """Gateways that hold memory, or may, in words."""
        visible = {gateway.pid for gateway in self.gateways}
        hidden = [
            f"a gateway whose engines cannot be seen runs at {address}"
            for address, port in self.ports.items()
            if port.is_gateway and port.pid not in visible
        ]
        return hidden + [
            f"a gateway (pid {gateway.pid}) has {gateway.engines} "
            f"engine{'' if gateway.engines == 1 else 's'}"
            for gateway in self.gateways
            if gateway.engines
        ]
