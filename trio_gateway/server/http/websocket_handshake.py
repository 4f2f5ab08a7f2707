"""A client's request for a WebSocket: whether it is valid, and what to say if it is not.

`wsproto` checks most of it. What it does not: the key, a body, an HTTP/1.0 client.
"""

from __future__ import annotations

import base64
import binascii

from h11 import LocalProtocolError as H11ProtocolError
from wsproto import ConnectionType, WSConnection
from wsproto.handshake import WEBSOCKET_VERSION
from wsproto.utilities import RemoteProtocolError

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import Header, Scope

_KEY_BYTES = 16
_VERSION = (("Sec-WebSocket-Version", WEBSOCKET_VERSION.decode()),)
_UPGRADE = (("Upgrade", "websocket"),)


def asked_for(scope: Scope) -> WSConnection:
    """The protocol on the server's side, which waits for the answer.

    Raises:
        ApiError: 426 for another version than 13, otherwise 400.
    """
    headers: list[Header] = [(name.lower(), value.strip()) for name, value in scope["headers"]]
    if scope["http_version"] != "1.1":
        raise invalid("a WebSocket begins with an HTTP/1.1 request")
    _check_version([value for name, value in headers if name == b"sec-websocket-version"])
    _check_key([value for name, value in headers if name == b"sec-websocket-key"])
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            raise invalid("a request for a WebSocket has no body")
    protocol = WSConnection(ConnectionType.SERVER)
    try:
        # What is asked for is the app's matter.
        protocol.initiate_upgrade_connection(headers, b"/")
    except (RemoteProtocolError, H11ProtocolError) as error:
        raise invalid(str(error)) from None
    except UnicodeError:
        raise invalid("its headers are not plain text") from None
    return protocol


def _check_version(versions: list[bytes]) -> None:
    if not versions:
        raise invalid("the header Sec-WebSocket-Version is missing", _VERSION)
    if versions != [WEBSOCKET_VERSION]:
        message = "this is not version 13 of the protocol (Sec-WebSocket-Version)"
        raise ApiError(426, message, code="invalid_websocket", headers=_VERSION + _UPGRADE)


def _check_key(keys: list[bytes]) -> None:
    try:
        if [len(base64.b64decode(key, validate=True)) for key in keys] == [_KEY_BYTES]:
            return
    except binascii.Error:
        pass
    raise invalid("the header Sec-WebSocket-Key must be there once: 16 bytes in base64")


def invalid(what: str, headers: tuple[tuple[str, str], ...] = ()) -> ApiError:
    message = f"this is not a valid request for a WebSocket: {what}"
    return ApiError(400, message, code="invalid_websocket", headers=headers)
