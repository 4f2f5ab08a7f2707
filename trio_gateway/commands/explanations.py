"""Where an explanation of a request comes from: the running gateway, or a fresh one made here."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import trio

from trio_gateway.commands.key import KEY_VARIABLE
from trio_gateway.config.schema import GatewayConfig, ServerConfig
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.counting.vocabulary import Vocabulary
from trio_gateway.models.explanation import Explanation, explain
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.models.names import ModelNames
from trio_gateway.server.access.permissions import EVERYTHING
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.reading.explained import asked_to_explain, open_to_explain
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.tasks import open_flat_nursery

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 60.0  # a llama-tokenize on a slow disk takes its time
_FIRST_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)


class ExplainFailed(Exception):
    """The request cannot be explained; the message says why."""


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


def ask_gateway(
    place: Place, body: bytes, key: str | None = None, endpoint: str | None = None
) -> Explanation | None:
    """The running gateway's own answer; None if none answers there.

    Raises:
        ExplainFailed: it answered with an error.
    """
    if place.socket is not None and not place.socket.exists():
        return None
    timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    transport = httpx.HTTPTransport(
        verify=_trusting(place.certificate) if place.certificate else False,
        uds=None if place.socket is None else str(place.socket),
        trust_env=False,
    )
    with httpx.Client(transport=transport, timeout=timeout, trust_env=False) as client:
        try:
            url, query = f"{place.url}/gateway/explain", {"endpoint": endpoint} if endpoint else {}
            answer = client.post(url, content=body, headers=headers, params=query)
        except httpx.ConnectError as error:
            if _is_about_tls(error):
                raise ExplainFailed(f"{place}: {error}") from None
            return None
        except httpx.HTTPError as error:
            raise ExplainFailed(f"{place}: {error!r}") from None
    try:
        if answer.status_code != 200:
            hint = f"; give a key with --key-file or ${KEY_VARIABLE}"
            denied = answer.json()["error"]["code"] in ("invalid_api_key", "admin_only")
            message = answer.json()["error"]["message"] + (hint if denied else "")
            raise ExplainFailed(f"{place}: {message}")
        return msgspec.json.decode(answer.content, type=Explanation)
    except (ValueError, TypeError, KeyError):  # msgspec's and json's are ValueErrors
        raise ExplainFailed(f"{place} is not a gateway of this version") from None


def _trusting(certificate: Path) -> ssl.SSLContext:
    """Trusts the gateway's own certificate and no other, whatever name it is for.

    Raises:
        ExplainFailed: the file cannot be read, or has no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is asked by an address of this machine
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        # The first one only: a chain's authority has issued others as well.
        found = _FIRST_CERTIFICATE.search(certificate.read_text("ascii", "replace"))
        if found is None:
            raise ExplainFailed(f"{certificate} has no certificate")
        context.load_verify_locations(cadata=found[0])
    except OSError as error:
        raise ExplainFailed(f"{certificate}: {error.strerror or error}") from None
    return context


def _is_about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def read_key(text: str) -> str:
    """Raises ExplainFailed: no header can carry it."""
    key = text.strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise ExplainFailed("expected an API key of visible ASCII characters on one line")
    return key


def explain_offline(config: GatewayConfig, body: bytes, endpoint: str | None = None) -> Explanation:
    """The same without a gateway: no engine runs, so the model's own vocabulary counts the tokens.

    Raises:
        ExplainFailed: the request is wrong.
    """
    try:
        return trio.run(_explain_offline, config, body, endpoint)
    except ApiError as error:
        raise ExplainFailed(str(error)) from None
    except RecursionError:
        raise ExplainFailed("the request is nested too deeply") from None


async def _explain_offline(config: GatewayConfig, body: bytes, endpoint: str | None) -> Explanation:
    manager, vocabulary = EngineManager(config), Vocabulary(None, config.secret_variables)
    counter = TokenCounter(manager.overview, vocabulary, None, config.secret_variables)
    selector = ModelSelector(config, manager.overview, counter)
    names = ModelNames(config, manager.overview.contexts_of)
    preparer = Preparer(names, manager.overview, selector)
    asked = asked_to_explain(preparer, open_to_explain(endpoint, body), EVERYTHING)
    carryover = config.server.kv_carryover
    async with open_flat_nursery() as nursery:
        await nursery.start(vocabulary.run)
        if carryover is not None and carryover.persist:
            await nursery.start(manager.kv.run)
        result = await explain(selector, counter, manager.overview, manager.kv, asked)
        nursery.cancel_scope.cancel(reason="the explanation is complete")
    return result
