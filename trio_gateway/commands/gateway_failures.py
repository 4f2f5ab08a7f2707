"""What goes wrong when a command asks the running gateway, as its user is told. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx

from trio_gateway import __version__
from trio_gateway.commands.key import KEY_VARIABLE

ANSWERED_BY = "x-gateway-request-id"  # each answer of a gateway has one
_WANT_A_KEY = frozenset({"invalid_api_key", "admin_only", "no_api_keys"})
_OF_ANOTHER_VERSION = frozenset({"unknown_path", "method_not_allowed"})
_NAME_YOURS = "name the configuration of yours with -c FILE"
_E = TypeVar("_E", bound=BaseException)


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


def nobody(place: Place) -> NoGateway:
    return NoGateway(
        f"no gateway answers at {place}; start it with `trio-gateway serve`, or name the "
        "configuration of the one that runs with -c FILE"
    )


def ended(place: Place) -> GatewayFailed:
    return GatewayFailed(
        f"the gateway at {place} has ended; its log may say why, and `trio-gateway "
        "serve` starts it again"
    )


def refusal(place: Place, answer: httpx.Response) -> GatewayFailed:
    """Of an answer that is none to the question, read to its end."""
    if ANSWERED_BY not in answer.headers:
        kind = answer.headers.get("content-type", "").partition(";")[0]
        said = f"it answered with status {answer.status_code}" + (f" and {kind}" if kind else "")
        return GatewayFailed(f"{place} is not a gateway of this version: {said}; {_NAME_YOURS}")
    try:
        error = answer.json()["error"]
        message, code = str(error["message"]), error["code"]
    except (ValueError, TypeError, KeyError):  # json's are ValueErrors
        message, code = "", "unknown_path"
    if code in _OF_ANOTHER_VERSION:
        return GatewayFailed(
            f"the gateway at {place} is of another version than this command ({__version__}): it "
            f"does not know {answer.request.url.path}; start it again with `trio-gateway serve`"
        )
    hint = f"; give a key with --key-file or ${KEY_VARIABLE}" if code in _WANT_A_KEY else ""
    return GatewayFailed(f"{place}: {message}{hint}")


@contextmanager
def telling(place: Place) -> Iterator[None]:
    """What goes wrong on the way in the block, as a GatewayFailed."""
    try:
        yield
    except httpx.HTTPError as error:
        raise _failure(place, error) from None


def _failure(place: Place, error: httpx.HTTPError) -> GatewayFailed:
    match error:
        case httpx.ConnectError():
            if (about_tls := _cause(error, ssl.SSLError)) is not None:
                return _tls_failure(place, about_tls)
            return nobody(place)
        case httpx.ConnectTimeout():
            return nobody(place)
        case httpx.ReadTimeout() | httpx.WriteTimeout():
            return GatewayFailed(
                f"the gateway at {place} has said nothing for a minute; its log may say why"
            )
        case httpx.RemoteProtocolError():
            return _broken_off(place, str(error))
        case httpx.NetworkError():
            return ended(place)
    return GatewayFailed(f"{place}: {str(error) or repr(error)}")


def _broken_off(place: Place, said: str) -> GatewayFailed:
    """`said`: by httpcore or h11, which have no types of their own for these."""
    if said.startswith("peer closed connection"):
        return ended(place)
    # Before the answer. A server of TLS that is asked in plain text sends an alert, or just closes.
    is_plain = place.socket is None and place.certificate is None
    tls = "; if it speaks https, set `server.tls` in the configuration" if is_plain else ""
    if said.startswith("Server disconnected"):
        return GatewayFailed(f"{ended(place)}{tls}")
    return GatewayFailed(f"{place} does not speak HTTP; {_NAME_YOURS}{tls}")


def _tls_failure(place: Place, error: ssl.SSLError) -> GatewayFailed:
    if isinstance(error, ssl.SSLCertVerificationError):
        return GatewayFailed(
            f"{place} has another certificate than {place.certificate}; name the configuration "
            f"that has the right one with -c FILE ({error.verify_message})"
        )
    if error.reason == "WRONG_VERSION_NUMBER":
        return GatewayFailed(f"{place} does not speak TLS; {_NAME_YOURS}")
    return GatewayFailed(f"{place}: TLS failed: {error.reason or error}; {_NAME_YOURS}")


def _cause(error: BaseException | None, kind: type[_E]) -> _E | None:
    """The first of this kind among what it comes from."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
