"""Ports of this machine: a free one, whether one is in use, and by which process."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import trio


def pick_free_port(taken: set[int], host: str = "127.0.0.1") -> int:
    """A port of this machine that nothing listens on now, none of `taken`.

    Raises:
        OSError: the host is none of this machine's addresses, or no descriptor is left.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port


async def address_in_use(host: str, port: int) -> bool:
    """Whether something listens there. False as well for an address that is not this machine's.

    Raises:
        OSError, UnicodeError: the host's name means nothing.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as probe:
            # As servers do: the closed connections of the last engine are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if is_address_in_use(error):
                    return True
    return False


def is_address_in_use(error: OSError) -> bool:
    return error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE))


def listener_of_group(group: int, port: int) -> bool | None:
    """Whether a process of the group listens on the port; None where that cannot be read."""
    readable = False
    for process in _group_members(group):
        try:
            connections = process.net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        readable = True
        if any(_listens_on(c, port) for c in connections):
            return True
    return False if readable else None


def _group_members(group: int) -> Iterator[psutil.Process]:
    """The leader first: looking for its children means reading the whole process table."""
    with contextlib.suppress(psutil.Error, OSError):
        leader = psutil.Process(group)
        yield leader
        yield from leader.children(recursive=True)


def _listens_on(connection: Any, port: int) -> bool:
    at = connection.laddr
    return bool(connection.status == psutil.CONN_LISTEN and at and at.port == port)


def describe_port_holder(port: int) -> str:
    """`"pid 123 (nginx)"` for an error message, or a hint where the holder cannot be read."""
    return listener_on(port)[1]


def listener_on(port: int) -> tuple[int | None, str]:
    """The process that listens there, and the same in words; None: it cannot be read."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if _listens_on(connection, port):
                if connection.pid is None:
                    break
                name = psutil.Process(connection.pid).name()
                return connection.pid, f"pid {connection.pid} ({name})"
    except (psutil.Error, OSError):
        pass
    return None, "a process of another user (its pid cannot be read)"
