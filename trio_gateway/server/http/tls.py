"""TLS with a certificate that may be renewed while the gateway runs."""

from __future__ import annotations

import logging
import os
import ssl
from typing import NoReturn

import trio

from trio_gateway.config.access_schema import TlsConfig
from trio_gateway.server.http.listeners import ListenError

log = logging.getLogger(__name__)

# No notification of new files works on all systems and file systems; a stat is cheap.
POLL_S = 5.0

Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificate:
    """The context that all TLS listeners share. New connections use what was loaded last."""

    def __init__(self, config: TlsConfig, poll_s: float = POLL_S) -> None:
        """Raises ListenError: the files cannot be used."""
        self._config, self._poll_s = config, poll_s
        self._seen = self._stamp()
        try:
            self.context = self._load(_new_context())
        except OSError as error:  # ssl.SSLError is one
            raise ListenError(f"cannot use TLS: {self._why(error)}") from None

    async def watch(self) -> None:
        """Load the files again when they change. Files that are wrong change nothing."""
        while True:
            await trio.sleep(self._poll_s)
            self.reload_if_changed()

    def reload_if_changed(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            # On a context of its own first: a key that does not fit would leave half of it behind.
            self._load(_new_context())
            self._load(self.context)
        except OSError as error:
            log.error("the new TLS certificate is not used: %s", self._why(error))
        else:
            log.info("reloaded the TLS certificate %s", self._config.certificate)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.load_cert_chain(self._config.certificate, self._config.key, _no_password)
        return context

    def _stamp(self) -> Stamp:
        return tuple(_stamp(path) for path in (self._config.certificate, self._config.key))

    def _why(self, error: OSError) -> str:
        files = f"{self._config.certificate}, {self._config.key}"
        return f"{files}: {error.strerror or error}"


def _stamp(path: os.PathLike[str]) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _new_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # No h2: a request's limits and repairs are those of HTTP/1.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> NoReturn:
    """Without it OpenSSL would ask on the terminal."""
    raise OSError("the key is encrypted; use one without a password")
