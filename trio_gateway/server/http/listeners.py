"""The sockets that the gateway listens on, TCP and Unix."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
from copy import copy

from trio_gateway.config.access_schema import UnixAddress
from trio_gateway.config.schema import ListenAddress
from trio_gateway.engine.process import ports

log = logging.getLogger(__name__)

BACKLOG = 512
_PROBE_S = 1.0  # to find out whether something listens on a socket file


Address = ListenAddress | UnixAddress


class ListenError(Exception):
    """An address cannot be listened on; the message says which, and who has it. `is_taken`: another
    socket has its port."""

    def __init__(self, message: str, *, is_taken: bool = False) -> None:
        super().__init__(message)
        self.is_taken = is_taken


class Opened:
    """A socket that listens on an address. `is_at`: that address, with the port that the system has
    chosen if it was to. `close` it, also if somebody has closed the socket: it may have a file."""

    def __init__(self, address: Address) -> None:
        """Raises ListenError."""
        self.address: Address = address
        self._identity: tuple[int, int] | None = None
        if isinstance(address, UnixAddress):
            self.socket = _bind_unix(address)
            self._identity = _identity(address)
            self.is_at: Address = address
        else:
            self.socket = _bind(address)
            host, port = self.socket.getsockname()[:2]
            self.is_at = ListenAddress(host, port)

    def twin(self) -> Opened:
        """Another socket for the same queue of connections."""
        found = copy(self)
        found.socket = self.socket.dup()
        return found

    def permit(self, address: UnixAddress) -> None:
        """Give its socket file other permissions. Raises ListenError."""
        try:
            os.chmod(address.path, address.mode)
        except OSError as error:
            raise ListenError(f"cannot listen on {address}: {error.strerror}") from None
        self.address = self.is_at = address

    def close(self) -> None:
        self.socket.close()
        if isinstance(self.address, UnixAddress) and self._identity is not None:
            _unlink(self.address, self._identity)


def _bind(address: ListenAddress) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, resolved = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(resolved)
        sock.listen(BACKLOG)  # now, so that a second gateway on this port fails here and not later
    except OSError as error:
        sock.close()
        reason, is_taken = error.strerror or str(error), ports.is_address_in_use(error)
        if is_taken:
            key = "listen_v6" if family == socket.AF_INET6 else "listen_v4"
            holder = ports.describe_port_holder(address.port)
            reason = f"the port is held by {holder}; stop it or change `{key}`"
        message = f"cannot listen on {address}: {reason}"
        raise ListenError(message, is_taken=is_taken) from None
    return sock


def _bind_unix(address: UnixAddress) -> socket.socket:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise ListenError(f"cannot listen on {address}: this system has no Unix sockets")
    _remove_stale(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    # Nobody may connect before the file has its mode. A file that a thread makes in this moment is
    # for its owner alone as well.
    before = os.umask(0o177)
    try:
        sock.setblocking(False)
        sock.bind(str(address.path))
        os.chmod(address.path, address.mode)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return sock


def _remove_stale(address: UnixAddress) -> None:
    """A gateway that was killed leaves its file; one that runs keeps it."""
    try:
        mode = os.lstat(address.path).st_mode
    except OSError:
        return  # no such file, or `bind` will say what is wrong
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {address}: the file exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(address.path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address.path)
                log.info("removed %s, which a gateway that was killed had left", address.path)
            return
        except OSError as error:
            reason = (
                f"the socket file exists, and connecting to it failed: {error.strerror or error}"
            )
            raise ListenError(f"cannot listen on {address}: {reason}") from None
    raise ListenError(
        f"cannot listen on {address}: another process is listening there; "
        "stop it or change `listen_unix`"
    )


def _identity(address: UnixAddress) -> tuple[int, int]:
    found = os.lstat(address.path)
    return found.st_dev, found.st_ino


def _unlink(address: UnixAddress, identity: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        if _identity(address) == identity:  # it may be a later gateway's by now
            os.unlink(address.path)
