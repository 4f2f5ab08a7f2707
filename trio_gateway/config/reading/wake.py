"""Readers for the keys that say how the machine of a remote model is woken."""

from __future__ import annotations

import ipaddress
from typing import Any

from trio_gateway.config.reading import fields
from trio_gateway.config.reading.fields import Mistakes, Reader, Record
from trio_gateway.config.wake_schema import BROADCAST, DISCARD_PORT, WakeOnLan, Way
from trio_gateway.magic_packet import read_mac

_EXAMPLE = '{ mac = "aa:bb:cc:dd:ee:ff" }'
_PORT_MAX = 65535


def way(mistakes: Mistakes, record: Record, outer: Way, command: Reader[tuple[str, ...]]) -> Way:
    """`wake` and `wake_command` of this table. One of them takes the place of both of the table
    around it."""
    lan = record.read("wake", wake_on_lan, None)
    none: tuple[str, ...] = ()
    words = record.read("wake_command", command, none)
    if record.has("wake") and record.has("wake_command"):
        what = "there is `wake` as well; keep one of the two"
        mistakes.add(record.field_path("wake_command"), what)
    return Way(lan, words) if record.has("wake") or record.has("wake_command") else outer


def wake_on_lan(mistakes: Mistakes, path: str, value: Any) -> WakeOnLan | None:
    if not fields.is_table(value):
        mistakes.expected(path, _EXAMPLE, value)
        return None
    record = Record(mistakes, path, value, {"address": 'use "mac"', "ip": 'use "broadcast"'})
    mac = record.require("mac", _mac, "the address of its network card", "")
    broadcast = record.read("broadcast", _broadcast, BROADCAST)
    port = record.read("port", _port, DISCARD_PORT)
    record.finish()
    return WakeOnLan(mac, broadcast, port) if mac else None


def _mac(mistakes: Mistakes, path: str, value: Any) -> str | None:
    if isinstance(value, str) and (mac := read_mac(value.strip())) is not None:
        return mac
    mistakes.expected(path, 'the address of a network card, such as "aa:bb:cc:dd:ee:ff"', value)
    return None


def _broadcast(mistakes: Mistakes, path: str, value: Any) -> str | None:
    try:
        return str(ipaddress.IPv4Address(value if isinstance(value, str) else ""))
    except ValueError:
        what = f'an IPv4 address, such as "{BROADCAST}" or "192.168.1.255"'
        mistakes.expected(path, what, value)
        return None


def _port(mistakes: Mistakes, path: str, value: Any) -> int | None:
    port = fields.positive_int(mistakes, path, value)
    if port is not None and port > _PORT_MAX:
        mistakes.expected(path, f"a port (1 to {_PORT_MAX})", value)
        return None
    return port
