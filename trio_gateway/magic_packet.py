"""Wake-on-LAN: the packet that a network card waits for while its machine sleeps. Pure."""

from __future__ import annotations

import re

_MAC = re.compile(r"[0-9A-Fa-f]{12}")
_SEPARATED = re.compile(r"[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}")
_DOTTED = re.compile(r"[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2}")
_REPEATS = 16


def read_mac(text: str) -> str | None:
    """A card's address as `aa:bb:cc:dd:ee:ff`, from the four ways in which people write it; None:
    it is not one, or not that of one card."""
    if not any(form.fullmatch(text) for form in (_SEPARATED, _DOTTED, _MAC)):
        return None
    digits = re.sub(r"[:.-]", "", text).lower()
    is_of_a_group = int(digits[:2], 16) & 1
    if is_of_a_group or not int(digits, 16):
        return None
    return ":".join(re.findall("..", digits))


def magic_packet(mac: str) -> bytes:
    """For the card with this address, as `read_mac` gives it: 102 bytes."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * _REPEATS
