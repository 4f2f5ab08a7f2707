"""LogHandler: `/gateway/logs`, the last lines of the gateway or of engines, and those that come."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio

from trio_gateway.lines import GATEWAY, KEPT, LogLine
from trio_gateway.models.names import ModelNames, ModelNotFound
from trio_gateway.server.api import sse
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError, model_not_found
from trio_gateway.server.feed.followed_lines import left_out
from trio_gateway.server.feed.logs import LineReader, Logs
from trio_gateway.server.feed.reader import SIGN_OF_LIFE
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import answer_of
from trio_gateway.server.handlers.watching import Watchers
from trio_gateway.server.relay.answer import Answer

LINES = b"application/x-ndjson"
EVENTS = sse.CONTENT_TYPE.encode()
LINES_DEFAULT = 200
HEARTBEAT_S = 15.0
PIECE_BYTES = 65536


class LogHandler:
    def __init__(self, logs: Logs, watchers: Watchers, names: ModelNames) -> None:
        self._logs, self._watchers, self._names = logs, watchers, names

    async def handle_logs(self, endpoint: Endpoint, call: Call) -> Answer:
        """An object a line, or server-sent events for whoever accepts those."""
        sources = sources_of(self._names, call.queries("engine") or [GATEWAY])
        count, follows = count_of(call.query("lines")), call.flag("follow", default=False)
        accepted = ",".join(call.header_values(b"accept"))
        wants_events = sse.CONTENT_TYPE in accepted.lower()
        kind = EVENTS if wants_events else LINES
        if not follows:
            lines = self._logs.last(sources, count)
            return answer_of(_encoded(lines, as_events=wants_events), kind)
        with self._logs.followed(sources) as reader:
            follower = _Follower(reader, self._logs.last(sources, count), as_events=wants_events)
            return await self._watchers.send(call, kind, follower.next, follower.sign_of_life)


def sources_of(names: ModelNames, wanted: Sequence[str]) -> frozenset[str]:
    """As lines have them, of `gateway`, models (of all their variants), variants and choices.

    Raises:
        ApiError: 404, there is no such model or variant.
    """
    found = set[str]()
    for name in wanted:
        if name == GATEWAY:
            found.add(GATEWAY)
            continue
        try:
            named = names.find_named(name)
        except ModelNotFound as error:
            raise model_not_found(f"{error}; `{GATEWAY}` is its own log") from None
        for one in [named] if named.choice is None else names.members(named.choice):
            variants = [variant.name for variant in one.model.variants]
            known = variants if one.variant is None else [one.variant]
            found.update(f"{one.model.name}:{variant}" for variant in known)
    return frozenset(found)


class _Follower:
    """First what was said, then what comes. A blank line, or a comment, is a sign of life."""

    def __init__(self, reader: LineReader, said: Sequence[LogLine], *, as_events: bool) -> None:
        self._reader, self._as_events = reader, as_events
        self._waiting = [*_pieces(said, as_events=as_events)][::-1]
        self.sign_of_life = SIGN_OF_LIFE if as_events else b"\n"

    async def next(self) -> bytes:
        while not self._waiting:
            with trio.move_on_after(HEARTBEAT_S):
                missed, lines = await self._reader.more()
                lines = [*left_out(missed), *lines]
                self._waiting = [*_pieces(lines, as_events=self._as_events)][::-1]
                continue
            return self.sign_of_life
        return self._waiting.pop()


def _pieces(lines: Sequence[LogLine], *, as_events: bool) -> list[bytes]:
    """In pieces that a reader takes one after the other."""
    pieces, size, begun = list[bytes](), 0, 0
    texts = [_one(line, as_events=as_events) for line in lines]
    for place, text in enumerate(texts):
        size += len(text)
        if size >= PIECE_BYTES:
            pieces.append(b"".join(texts[begun : place + 1]))
            begun, size = place + 1, 0
    rest = b"".join(texts[begun:])
    return [*pieces, rest] if rest else pieces


def _encoded(lines: Sequence[LogLine], *, as_events: bool) -> bytes:
    return b"".join(_one(line, as_events=as_events) for line in lines)


def _one(line: LogLine, *, as_events: bool) -> bytes:
    data = msgspec.json.encode(line)
    return b"event: log\ndata: %b\n\n" % data if as_events else data + b"\n"


def count_of(said: str | None) -> int:
    """Raises ApiError: 400, it is no number of lines."""
    if not said:
        return LINES_DEFAULT
    if not (said.isascii() and said.isdigit() and len(said) < 10):
        message = f"?lines= is {said[:40]!r}; expected a number from 0 to {KEPT}"
        raise ApiError(400, message, code="invalid_parameter", param="lines")
    return min(int(said), KEPT)
