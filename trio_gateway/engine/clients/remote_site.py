"""RemoteSite: one of the places where an engine of the type `remote` is, and the way there."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

import trio

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.errors import (
    OWN_LIMITS,
    EngineLost,
    EngineUnreachable,
    NotTrusted,
    OutOfSockets,
    out_of_sockets,
)
from trio_gateway.engine.http.transport import PlainTransport, TlsTransport, Transport

_DEFAULT_PORTS = {"http": 80, "https": 443}
_API = "/v1"
# A host that is gone says nothing: the rest of a stream would be waited for without end. Not
# every platform has all of these.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, probes


class RemoteSite:
    """A base URL, as OpenAI clients take it: with a path, the API is right below that; without
    one, below `/v1`.

    `lost`: how the last try there got no answer at all; None: it got one, or there was none.
    `health_targets`: the paths that may say whether it works, the one to ask first.
    """

    keep_s = 30.0  # proxies keep one for 60 s and more; one that is closed shows before it is used

    def __init__(
        self, url: str, tls: ssl.SSLContext | None, connect_timeout_s: float, health: Sequence[str]
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.url, self.host = url, parts.hostname
        self.port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self.authority = parts.netloc.encode("ascii")
        self.lost: EngineLost | None = None
        self._api = parts.path or _API
        self._root = self._api.removesuffix(_API)
        self.health_targets = [self.target(path) for path in health]
        self._tls = tls if parts.scheme == "https" else None
        self._connect_timeout_s = connect_timeout_s
        # Of a host that is gone a fresh connection would tell as soon.
        self.unheard_s = connect_timeout_s

    def __repr__(self) -> str:
        return f"<RemoteSite {self.url}>"

    def target(self, target: str) -> str:
        """The path on this site for a path of the API, such as `/v1/models` or `/tokenize`."""
        if target.startswith(f"{_API}/"):
            return self._api + target.removeprefix(_API)
        return self._root + target

    async def connect(self) -> Transport:
        """A connection, with TLS where the URL says so.

        Raises:
            EngineUnreachable: with the reason, certificates included.
        """
        try:
            with trio.fail_after(self._connect_timeout_s):
                return await self._connect()
        except trio.TooSlowError:
            limit = f"{self._connect_timeout_s:g} s (connect_timeout)"
            raise EngineUnreachable(f"no connection within {limit}") from None

    async def _connect(self) -> Transport:
        try:
            stream = await trio.open_tcp_stream(self.host, self.port)
        except OSError as error:
            if (own := _own_limit(error)) is not None:
                raise OutOfSockets(out_of_sockets(own)) from error
            if isinstance(error, socket.gaierror):
                raise EngineUnreachable(f"{self.host} is unknown: {error.strerror}") from error
            raise EngineUnreachable("nothing answers there") from error
        sock = socket.socket(fileno=stream.socket.detach())
        _notice_silence(sock)
        if self._tls is None:
            return PlainTransport(sock)
        sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        # Not `https_compatible`: a connection that just ends does not end an answer.
        secure = trio.SSLStream(stream, self._tls, server_hostname=self.host)
        try:
            await secure.do_handshake()
        except trio.BrokenResourceError as error:
            stream.socket.close()
            raise NotTrusted(f"TLS: {_tls_reason(error)}") from error
        except BaseException:
            stream.socket.close()
            raise
        return TlsTransport(secure, sock)


def tls_context(options: EngineOptions) -> ssl.SSLContext:
    """Raises OSError: `ca_file` cannot be read, or has no certificate."""
    context = ssl.create_default_context(
        cafile=None if options.ca_file is None else str(options.ca_file)
    )
    if not options.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _notice_silence(sock: socket.socket) -> None:
    """Have the system look after 30 s without a byte whether the other host is still there; after
    30 s more the connection breaks."""
    with contextlib.suppress(OSError):  # one that broke already: the next use of it will tell
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _own_limit(error: BaseException | None) -> OSError | None:
    """The error of this machine's limits, if that is why no attempt succeeded."""
    if isinstance(error, OSError) and error.errno in OWN_LIMITS:
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((own for e in error.exceptions if (own := _own_limit(e))), None)
    return _own_limit(error.__cause__) if error is not None and error.__cause__ else None


def _tls_reason(error: trio.BrokenResourceError) -> str:
    match error.__cause__:
        case ssl.SSLCertVerificationError(verify_message=str(message)):
            return f"its certificate is not valid: {message} (see `ca_file`)"
        case ssl.SSLError(reason=str(reason)):
            return reason
    return "the connection broke in the handshake"
