"""GatewayClient: how commands find the running gateway of a configuration, and ask it."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from trio_gateway.commands.key import KEY_VARIABLE
from trio_gateway.config.schema import ServerConfig

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 60.0  # a llama-tokenize on a slow disk takes its time
_FIRST_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)


class GatewayFailed(Exception):
    """The gateway refused, or cannot be talked to; the message says why and what to do."""


class NoGateway(GatewayFailed):
    """None answers there."""


class Place(NamedTuple):
    """Where the gateway of a configuration can be asked from this machine."""

    url: str
    socket: Path | None = None
    certificate: Path | None = None

    def __str__(self) -> str:
        return self.url if self.socket is None else f"unix:{self.socket}"


def place_of(server: ServerConfig) -> Place:
    """A socket file before an address: it needs no TLS, and no other program can listen there."""
    if server.listen_unix:
        return Place("http://localhost", socket=server.listen_unix[0].path)
    address = server.listen[0].from_here
    if server.tls is not None:
        return Place(address.url_with("https"), certificate=server.tls.certificate)
    return Place(address.url)


# None: it is left out; a list: it is there more than once.
Query = Mapping[str, str | int | list[str] | None]
NO_QUERY: Query = {}


class GatewayClient:
    """Asks one gateway. `key`: an API key for it.

    Raises:
        GatewayFailed: each method; NoGateway if none answers.
    """

    def __init__(self, place: Place, key: str | None = None) -> None:
        self.place = place
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def get(self, path: str, query: Query = NO_QUERY) -> Any:
        """What its JSON says."""
        return self._json(self._answer("GET", path, b"", query, ANSWER_TIMEOUT_S))

    def post(
        self,
        path: str,
        content: bytes = b"",
        query: Query = NO_QUERY,
        answer_timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> Any:
        """The same. `answer_timeout_s` None: it may take as long as it likes."""
        return self._json(self._answer("POST", path, content, query, answer_timeout_s))

    def _answer(
        self, method: str, path: str, content: bytes, query: Query, answer_timeout_s: float | None
    ) -> httpx.Response:
        self._check_socket()
        timeout = httpx.Timeout(answer_timeout_s, connect=CONNECT_TIMEOUT_S)
        transport = httpx.HTTPTransport(verify=self._verify(), uds=self._socket(), trust_env=False)
        with (
            self._told(),
            httpx.Client(transport=transport, timeout=timeout, trust_env=False) as client,
        ):
            return client.request(
                method, f"{self.place.url}{path}", content=content or None, params=_given(query),
                headers=self._headers,
            )  # fmt: skip

    @asynccontextmanager
    async def lines(self, path: str, query: Query = NO_QUERY) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a stream, which may pause for as long as it likes."""
        self._check_socket()
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
        transport = httpx.AsyncHTTPTransport(
            verify=self._verify(), uds=self._socket(), trust_env=False
        )
        async with httpx.AsyncClient(
            transport=transport, timeout=timeout, trust_env=False
        ) as client:
            request = client.build_request(
                "GET", f"{self.place.url}{path}", params=_given(query), headers=self._headers
            )
            with self._told():
                response = await client.send(request, stream=True)
            try:
                if response.status_code != 200:
                    await response.aread()
                    self._json(response)
                yield self._lines(response)
            finally:
                await response.aclose()

    async def _lines(self, response: httpx.Response) -> AsyncIterator[str]:
        with self._told():
            async for line in response.aiter_lines():
                yield line

    def _json(self, answer: httpx.Response) -> Any:
        try:
            value = answer.json()
            if answer.status_code == 200:
                return value
            error = value["error"]
            message, code = error["message"], error["code"]
        except (ValueError, TypeError, KeyError):  # json's are ValueErrors
            raise GatewayFailed(f"{self.place} is not a gateway of this version") from None
        hint = f"; give a key with --key-file or ${KEY_VARIABLE}"
        denied = code in ("invalid_api_key", "admin_only")
        raise GatewayFailed(f"{self.place}: {message}{hint if denied else ''}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong on the way, as it is told."""
        try:
            yield
        except httpx.ConnectError as error:
            if _is_about_tls(error):
                raise GatewayFailed(f"{self.place}: {error}") from None
            raise self._nobody() from None
        except httpx.ConnectTimeout:
            raise self._nobody() from None
        except httpx.HTTPError as error:
            raise GatewayFailed(f"{self.place}: {str(error) or repr(error)}") from None

    def _nobody(self) -> NoGateway:
        return NoGateway(
            f"no gateway answers at {self.place}; start it with `trio-gateway serve`, or name the "
            "configuration of the one that runs with -c FILE"
        )

    def _check_socket(self) -> None:
        if self.place.socket is not None and not self.place.socket.exists():
            raise self._nobody()

    def _socket(self) -> str | None:
        return None if self.place.socket is None else str(self.place.socket)

    def _verify(self) -> ssl.SSLContext | bool:
        return _trusting(self.place.certificate) if self.place.certificate else False


def _given(query: Query) -> dict[str, str | int | list[str]]:
    return {name: value for name, value in query.items() if value is not None}


def in_path(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")


def _trusting(certificate: Path) -> ssl.SSLContext:
    """Trusts the gateway's own certificate and no other, whatever name it is for.

    Raises:
        GatewayFailed: the file cannot be read, or has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is asked by an address of this machine
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        # The first one only: a chain's authority has issued others as well.
        found = _FIRST_CERTIFICATE.search(certificate.read_text("ascii", "replace"))
        if found is None:
            raise GatewayFailed(f"{certificate} has no certificate")
        context.load_verify_locations(cadata=found[0])
    except OSError as error:
        raise GatewayFailed(f"{certificate}: {error.strerror or error}") from None
    return context


def _is_about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def read_key(text: str) -> str:
    """Raises GatewayFailed: no header can carry it."""
    key = text.strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise GatewayFailed("expected an API key of visible ASCII characters on one line")
    return key
