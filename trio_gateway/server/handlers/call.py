"""Call: the request at hand, as a handler sees it."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

from trio_gateway.server.access.caller import caller_of
from trio_gateway.server.access.permissions import PERMISSIONS_KEY, Permissions
from trio_gateway.server.api.endpoint import Body, Endpoint, Family
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.dumps import DumpWriter, beginning_of
from trio_gateway.server.history.recorder import Recorder
from trio_gateway.server.http.scopes import RequestState
from trio_gateway.server.http.types import FIRST_KEY, REQUEST_KEY, Header, Message, Scope, Send
from trio_gateway.server.relay.ask import Sender

# Only what an engine needs: cookies and keys are not for it. What the body is, it is told by us, as
# the gateway has read it: an engine must not take for a form what was checked as JSON.
_CONTENT_TYPE = b"content-type"
_PASSED_TO_ENGINE = (b"accept",)
_PASSED_TO_ANTHROPIC = (*_PASSED_TO_ENGINE, b"anthropic-version", b"anthropic-beta")
_PASSED_UPSTREAM = (
    *_PASSED_TO_ENGINE,
    _CONTENT_TYPE,
    b"accept-encoding",
    b"accept-language",
    b"if-none-match",
    b"range",
)
_JSON: list[Header] = [(_CONTENT_TYPE, b"application/json")]
_WITHOUT_JSON = (Body.NONE, Body.ANY)
_NO_VALUES: Mapping[str, str] = {}


class Onlookers(NamedTuple):
    """Who may want to see requests and their answers."""

    dumps: DumpWriter | None = None
    recorder: Recorder | None = None


NOBODY = Onlookers()


class Call:
    """One request. `values`: the parts of its path that are values, by name. `send`: where its
    answer may begin early, if it may."""

    def __init__(
        self,
        scope: Scope,
        onlookers: Onlookers = NOBODY,
        values: Mapping[str, str] = _NO_VALUES,
        send: Send | None = None,
    ) -> None:
        self.scope, self.values, self._send = scope, values, send
        self._onlookers = onlookers
        self.state: RequestState = scope[REQUEST_KEY]
        self.permissions: Permissions = scope[PERMISSIONS_KEY]

    @property
    def method(self) -> str:
        method: str = self.scope["method"]
        return method

    async def send(self, message: Message) -> None:
        """Of an answer that the handler sends itself."""
        assert self._send is not None, "its row is answered directly"
        await self._send(message)

    def header_values(self, wanted: bytes) -> list[str]:
        """All headers of this name, which is in small letters."""
        headers: list[Header] = self.scope["headers"]
        return [value.decode("latin-1") for name, value in headers if name == wanted]

    def query(self, wanted: str) -> str | None:
        """The first parameter of this name."""
        return next(iter(self.queries(wanted)), None)

    def queries(self, wanted: str) -> list[str]:
        """All parameters of this name."""
        text: str = self.scope["query_string"].decode("ascii", "replace")
        found = parse_qsl(text, keep_blank_values=True) if text else ()
        return [value for name, value in found if name == wanted]

    def flag(self, name: str, *, default: bool) -> bool:
        """A query parameter that is true or false.

        Raises:
            ApiError: 400, it is neither.
        """
        value = self.query(name)
        if value is None:
            return default
        if value.lower() not in ("", "true", "1", "false", "0"):
            message = f"?{name}= is {value[:40]!r}; expected true or false"
            raise ApiError(400, message, code="invalid_parameter", param=name)
        return value.lower() in ("", "true", "1")

    async def read_pieces(self) -> list[bytes]:
        """A JSON body in the pieces in which it came. A byte order mark is no part of it: what
        was read from a file of Windows' has one, and not every engine skips it.

        Raises:
            ApiError: as `Upload.receive` does.
        """
        pieces = await self.state.upload.read_pieces()
        if len(pieces) > 1 and len(pieces[0]) < len(BOM_UTF8):
            pieces = [b"".join(pieces)]
        if pieces and pieces[0].startswith(BOM_UTF8):
            pieces[0] = pieces[0].removeprefix(BOM_UTF8)
        return pieces

    async def read_as_sent(self) -> list[bytes]:
        """A body that may be anything. Raises as `read_pieces` does."""
        return await self.state.upload.read_pieces()

    def begin_dump(self, endpoint: Endpoint, body: Sequence[bytes]) -> None:
        """Have the answer written down, if dumps are wanted; and recorded, if that is."""
        dumps = self._onlookers.dumps
        if dumps is not None and dumps.folder is not None:
            data = beginning_of(body)
            record = dumps.begin(self.state.id, endpoint.name, data, self.state.hold)
            self.state.observers.append(record)
            self.state.stack.callback(record.finish)
        self.begin_capture(endpoint, body)

    def begin_capture(self, endpoint: Endpoint, body: Sequence[bytes]) -> None:
        """Have request and answer recorded, if an admin wants that."""
        recorder = self._onlookers.recorder
        if recorder is not None and recorder.is_on:
            recorder.watch(self.state, endpoint.name, body)

    def sender(self, endpoint: Endpoint) -> Sender:
        """Who sent it, with those of its headers that are for an engine."""
        passed: Sequence[bytes] = _PASSED_TO_ENGINE
        if endpoint.body is Body.ANY:
            passed = _PASSED_UPSTREAM
        elif endpoint.family is Family.ANTHROPIC:
            passed = _PASSED_TO_ANTHROPIC
        first: Mapping[bytes, bytes] = self.scope[FIRST_KEY]
        headers = [(name, first[name]) for name in passed if name in first]
        return self._sender(headers if endpoint.body in _WITHOUT_JSON else [*_JSON, *headers])

    def sender_of_form(self, content_type: bytes) -> Sender:
        """Who sent a form, with its content type written anew."""
        first: Mapping[bytes, bytes] = self.scope[FIRST_KEY]
        others = [(name, first[name]) for name in _PASSED_TO_ENGINE if name in first]
        return self._sender([(_CONTENT_TYPE, content_type), *others])

    def sender_of_translated(self) -> Sender:
        """Who sent a request that an engine gets another one for, in JSON."""
        return self._sender(_JSON)

    def _sender(self, headers: list[Header]) -> Sender:
        caller, record = caller_of(self.scope), self.state.record
        record.client, record.priority = caller.client, caller.priority
        if record.trace is not None:
            headers = [*headers, *record.trace.to_engine]
        return Sender(self.state, caller, headers, self.permissions, self._send)
