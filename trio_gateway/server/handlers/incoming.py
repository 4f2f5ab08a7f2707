"""Incoming: what every handler needs from Quart's request: its body, and who sent it."""

from __future__ import annotations

from quart import request

from trio_gateway.engine.http.exchange import Header
from trio_gateway.server.access.caller import caller_of
from trio_gateway.server.access.permissions import Permissions, permissions_of
from trio_gateway.server.api.endpoints import Body, Endpoint, Family
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.dumps import DumpWriter
from trio_gateway.server.http.scopes import state_of
from trio_gateway.server.relay.prepare import Sender

# Only what an engine needs: cookies and keys are not for it.
_PASSED_TO_ENGINE = ("Content-Type", "Accept")
_PASSED_TO_ANTHROPIC = (*_PASSED_TO_ENGINE, "Anthropic-Version", "Anthropic-Beta")
_PASSED_UPSTREAM = (
    *_PASSED_TO_ENGINE,
    "Accept-Encoding",
    "Accept-Language",
    "If-None-Match",
    "Range",
)
_JSON: list[Header] = [(b"Content-Type", b"application/json")]


class Incoming:
    """One for all requests; each method is about the one at hand."""

    def __init__(self, dumps: DumpWriter | None) -> None:
        self._dumps = dumps

    async def read_body(self) -> bytes:
        """Raises ApiError as `Upload.receive` does."""
        return await state_of(request).upload.read_all()

    def begin_dump(self, endpoint: Endpoint, data: bytes) -> None:
        """Have the answer to this request written down, if dumps are wanted."""
        if self._dumps is not None:
            state = state_of(request)
            record = self._dumps.begin(state.id, endpoint.name, data)
            state.observers.append(record)
            state.stack.callback(record.finish)

    @property
    def permissions(self) -> Permissions:
        return permissions_of(request.scope)

    def sender(self, endpoint: Endpoint) -> Sender:
        """Who sent it, with those of its headers that are for an engine."""
        passed: tuple[str, ...] = _PASSED_TO_ENGINE
        if endpoint.body is Body.ANY:
            passed = _PASSED_UPSTREAM
        elif endpoint.family is Family.ANTHROPIC:
            passed = _PASSED_TO_ANTHROPIC
        headers = [
            (name.encode(), value.encode("latin-1"))
            for name in passed
            if (value := request.headers.get(name)) is not None
        ]
        return Sender(state_of(request), caller_of(request.scope), headers, self.permissions)

    def sender_of_translated(self) -> Sender:
        """Who sent a request that an engine gets another one for, in JSON."""
        return Sender(state_of(request), caller_of(request.scope), _JSON, self.permissions)


def flag(name: str, *, default: bool) -> bool:
    """A query parameter that is true or false.

    Raises:
        ApiError: 400, it is neither.
    """
    value = request.args.get(name)
    if value is None:
        return default
    if value.lower() not in ("", "true", "1", "false", "0"):
        message = f"?{name}= is {value[:40]!r}; expected true or false"
        raise ApiError(400, message, code="invalid_parameter", param=name)
    return value.lower() in ("", "true", "1")
