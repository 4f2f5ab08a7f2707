"""How a machine that sleeps is woken: the frozen struct for that key."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

BROADCAST, DISCARD_PORT = "255.255.255.255", 9


class WakeOnLan(msgspec.Struct, frozen=True):
    """By a magic packet. `mac`: of its network card, as `aa:bb:cc:dd:ee:ff`. `broadcast`: the IPv4
    address that the packet goes to."""

    mac: str
    broadcast: str = BROADCAST
    port: int = DISCARD_PORT

    def __str__(self) -> str:
        return f"{self.mac} (UDP, {self.broadcast}:{self.port})"


class Way(NamedTuple):
    """How a machine is woken: by a packet, or by a command."""

    lan: WakeOnLan | None
    command: tuple[str, ...]

    @property
    def is_one(self) -> bool:
        return self.lan is not None or bool(self.command)


NO_WAY = Way(None, ())
