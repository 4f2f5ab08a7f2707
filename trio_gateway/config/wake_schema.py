"""How a machine that sleeps is woken: the frozen struct for that key."""

from __future__ import annotations

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
