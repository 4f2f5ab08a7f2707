"""GatewayClient: how commands find the running gateway of a configuration, and ask it."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from trio_gateway.commands.gateway_failures import (
    ANSWERED_BY,
    GatewayFailed,
    Place,
    nobody,
    refusal,
    telling,
)
from trio_gateway.config.schema import GatewayConfig, ServerConfig

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 60.0  # a llama-tokenize on a slow disk takes its time
SILENCE_S = 60.0  # of a stream, which says something every 15 s
_FIRST_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)


def place_of(server: ServerConfig) -> Place:
    """A socket file before an address: it needs no TLS, and no other program can listen there."""
    if server.listen_unix:
        return Place("http://localhost", socket=server.listen_unix[0].path)
    address = server.listen[0].from_here
    if server.tls is not None:
        return Place(address.url_with("https"), certificate=server.tls.certificate)
    return Place(address.url)


def place_of_running(config: GatewayConfig) -> Place:
    """Where the gateway of this configuration listens; where the file says, unless that has changed
    since."""
    wanted = place_of(config.server)
    # Imported here: only where a gateway may run somewhere else.
    from trio_gateway.server.http.whereabouts import Whereabouts

    places = [
        Place(
            spot.url,
            None if spot.socket is None else Path(spot.socket),
            None if spot.certificate is None else Path(spot.certificate),
        )
        for spot in Whereabouts(config.source).spots()
    ]
    return wanted if wanted in places or not places else places[0]


# None: it is left out; a list: it is there more than once.
Query = Mapping[str, str | int | list[str] | None]
NO_QUERY: Query = {}


class GatewayClient:
    """Asks one gateway. `key`: an API key for it.

    Raises:
        GatewayFailed: each method; NoGateway if none answers.
    """

    def __init__(self, place: Place, key: str | None = None) -> None:
        self.place, self.key = place, key
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def is_there(self) -> bool:
        """Whether a gateway answers, whatever it says."""
        with suppress(GatewayFailed):
            answer = self._answer("GET", "/health", b"", NO_QUERY, CONNECT_TIMEOUT_S)
            return ANSWERED_BY in answer.headers
        return False

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
            telling(self.place),
            httpx.Client(transport=transport, timeout=timeout, trust_env=False) as client,
        ):
            return client.request(
                method, f"{self.place.url}{path}", content=content or None, params=_given(query),
                headers=self._headers,
            )  # fmt: skip

    @asynccontextmanager
    async def lines(
        self, path: str, query: Query = NO_QUERY, content: bytes = b""
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a stream, which has signs of life in it. `content`: it is asked for with a
        POST, and has this as its body."""
        self._check_socket()
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S)
        transport = httpx.AsyncHTTPTransport(
            verify=self._verify(), uds=self._socket(), trust_env=False
        )
        async with httpx.AsyncClient(
            transport=transport, timeout=timeout, trust_env=False
        ) as client:
            request = client.build_request(
                "POST" if content else "GET", f"{self.place.url}{path}", content=content or None,
                params=_given(query), headers=self._headers,
            )  # fmt: skip
            with telling(self.place):
                response = await client.send(request, stream=True)
            try:
                if response.status_code != 200 or ANSWERED_BY not in response.headers:
                    with telling(self.place):
                        await response.aread()
                    raise refusal(self.place, response)
                yield self._lines(response)
            finally:
                await response.aclose()

    async def _lines(self, response: httpx.Response) -> AsyncIterator[str]:
        with telling(self.place):
            async for line in response.aiter_lines():
                yield line

    def _json(self, answer: httpx.Response) -> Any:
        if answer.status_code == 200 and ANSWERED_BY in answer.headers:
            with suppress(ValueError):  # json's are
                return answer.json()
        raise refusal(self.place, answer)

    def _check_socket(self) -> None:
        """httpx would not say what is wrong with a socket file, nor close what it tried it with."""
        if self.place.socket is None:
            return
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(CONNECT_TIMEOUT_S)
            try:
                tried.connect(str(self.place.socket))
            except (FileNotFoundError, ConnectionRefusedError):  # or left over
                raise nobody(self.place) from None
            except OSError as error:
                raise GatewayFailed(f"{self.place}: {error.strerror or error}") from None

    def _socket(self) -> str | None:
        return None if self.place.socket is None else str(self.place.socket)

    def _verify(self) -> ssl.SSLContext | bool:
        return _trusting(self.place.certificate) if self.place.certificate else False


def _given(query: Query) -> dict[str, str | int | list[str]]:
    return {name: value for name, value in query.items() if value is not None}


def in_path(name: str) -> str:
    """A name as a part of a path, whichever bytes were typed."""
    return quote(name, safe="", errors="surrogateescape")


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


def read_key(text: str) -> str:
    """Raises GatewayFailed: no header can carry it."""
    key = text.strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise GatewayFailed("expected an API key of visible ASCII characters on one line")
    return key
