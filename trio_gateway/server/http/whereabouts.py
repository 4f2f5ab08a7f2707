"""Whereabouts: where the gateway of a configuration listens, for commands of this machine.

By its configuration a command finds only a gateway that listens where the file says; but the file
may have changed since, and be about to be reloaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import platformdirs

from trio_gateway.config.access_schema import TlsConfig, UnixAddress
from trio_gateway.config.schema import ListenAddress

if TYPE_CHECKING:  # commands do without sockets
    from trio_gateway.server.http.listeners import Address

log = logging.getLogger(__name__)


class Spot(msgspec.Struct, frozen=True):
    """One address as a client of this machine uses it. `certificate`: the gateway's own."""

    url: str
    socket: str | None = None
    certificate: str | None = None


class _Told(msgspec.Struct, frozen=True):
    pid: int
    spots: list[Spot]


class Whereabouts:
    """Of the gateway that has this configuration; the last one that told counts."""

    def __init__(self, source: Path) -> None:
        name = hashlib.blake2b(os.fsencode(os.path.abspath(source)), digest_size=8).hexdigest()
        folder = platformdirs.user_state_path("trio-gateway", appauthor=False) / "running"
        self._path = folder / f"{name}.json"

    def tell(self, addresses: Sequence[Address], tls: TlsConfig | None) -> None:
        """Of this process. What cannot be written down is no reason to stop."""
        told = _Told(os.getpid(), spots_of(addresses, tls))
        new = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.write_bytes(msgspec.json.encode(told))
            new.replace(self._path)
        except OSError as error:
            log.debug("%s is not written: %s", self._path, error)

    def forget(self) -> None:
        """This process listens no more."""
        told = self._read()
        if told is not None and told.pid == os.getpid():
            with contextlib.suppress(OSError):
                self._path.unlink()

    def spots(self) -> list[Spot]:
        """Where the gateway listens, if it lives."""
        told = self._read()
        return told.spots if told is not None and _lives(told.pid) else []

    def _read(self) -> _Told | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Told)
        except (OSError, msgspec.DecodeError):
            return None


def spots_of(addresses: Sequence[Address], tls: TlsConfig | None) -> list[Spot]:
    """Socket files first: they need no TLS, and no other program can listen there."""
    files = [a for a in addresses if isinstance(a, UnixAddress)]
    found = [Spot("http://localhost", socket=os.path.abspath(file.path)) for file in files]
    for address in (a.from_here for a in addresses if isinstance(a, ListenAddress)):
        if tls is None:
            found.append(Spot(address.url))
        else:
            found.append(
                Spot(address.url_with("https"), certificate=os.path.abspath(tls.certificate))
            )
    return found


def _lives(pid: int) -> bool:
    if sys.platform == "win32":  # there such a question would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return pid > 0
    return pid > 0
