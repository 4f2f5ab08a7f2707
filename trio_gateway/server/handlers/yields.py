"""YieldHandler: `/gateway/yield`, where memory is kept free for another program."""

from __future__ import annotations

import math

import msgspec
import trio

from trio_gateway.config.reading import fields
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.yields import YieldHandle, YieldImpossible, Yields
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.handlers.watching import Watchers
from trio_gateway.server.relay.answer import Answer

SECONDS_MAX = 7 * 24 * 3600.0
LIFE_S = 15.0
_BODY_MAX_BYTES = 4096
_KIND = b"application/x-ndjson"
_SIGN_OF_LIFE = b"\n"


class YieldWanted(msgspec.Struct, forbid_unknown_fields=True):
    """`memory`: bytes, or text such as "12GiB". `seconds`: from when the room is there. `stream`:
    it is held for as long as the connection is open, and told how it goes."""

    memory: str | int | float
    seconds: float | None = None
    pool: str | None = None
    device: str | None = None
    stream: bool = False


class YieldHandler:
    def __init__(self, config: GatewayConfig, yields: Yields, watchers: Watchers) -> None:
        self._config, self._yields, self._watchers = config, yields, watchers

    async def handle_yields(self, endpoint: Endpoint, call: Call) -> Answer:
        """Those that there are. POST asks for one, and is answered once the room is there."""
        if call.method != "POST":
            return json_answer({"yields": self._yields.rows()})
        wanted = _wanted(b"".join(await call.read_pieces()))
        handle = await self._ask(wanted, call)
        if wanted.stream:
            return await self._hold(handle, call)
        try:
            await handle.settled()
        except trio.Cancelled:
            self._yields.end(handle.number, "its client has gone")
            raise
        if (row := self._yields.row(handle)) is None:
            raise ApiError(503, f"it was ended: {handle.reason}", code="yield_ended")
        return json_answer(row)

    async def handle_yield_end(self, endpoint: Endpoint, call: Call) -> Answer:
        number = call.values["id"]
        is_number = number.isascii() and number.isdecimal() and len(number) < 10
        if not is_number or not self._yields.end(int(number), "it was ended by an admin"):
            message = f"there is no yield {number[:40]!r}"
            raise ApiError(404, message, "not_found_error", code="no_yield")
        return json_answer({"id": int(number), "ended": True})

    async def _ask(self, wanted: YieldWanted, call: Call) -> YieldHandle:
        memory, seconds = _size(wanted.memory), wanted.seconds
        if seconds is None and not wanted.stream:
            raise _wrong("seconds", "is missing: for how long the room is kept free")
        if seconds is not None and not 0 < seconds <= SECONDS_MAX:
            raise _wrong("seconds", f"has to be more than 0, and {SECONDS_MAX:g} at most")
        pool = self._pool(wanted.pool)
        by = f'the API key "{call.permissions.key}"' if call.permissions.key else "a client"
        try:
            return await self._yields.ask(
                pool, memory, math.inf if seconds is None else seconds, wanted.device, by
            )
        except YieldImpossible as error:
            status = 400 if error.is_for_good else 409
            raise ApiError(
                status, str(error), code="yield_impossible", param=error.member
            ) from None

    def _pool(self, name: str | None) -> str:
        local = dict.fromkeys(m.pool for m in self._config.models if m.engine.has_process)
        if name is None:
            return next(iter(local)) if len(local) == 1 else "primary"
        if name in self._config.pools and name not in local:
            raise _wrong("pool", f"{name!r} has no engines on this machine")
        return name

    async def _hold(self, handle: YieldHandle, call: Call) -> Answer:
        progress = _Progress(self._yields, handle)
        try:
            return await self._watchers.send(call, _KIND, progress.next, _SIGN_OF_LIFE)
        finally:
            self._yields.end(handle.number, "its holder has gone")


class _Progress:
    """A line whenever something has changed, as JSON; the last one says why it is over."""

    def __init__(self, yields: Yields, handle: YieldHandle) -> None:
        self._yields, self._handle = yields, handle
        self._told = b""
        self._is_over = False

    async def next(self) -> bytes:
        while not self._is_over:
            changed, line = self._handle.changed, self._line()
            if line != self._told:
                self._told = line
                return line + b"\n"
            with trio.move_on_after(LIFE_S):
                await changed.wait()
                continue
            return _SIGN_OF_LIFE
        return b""

    def _line(self) -> bytes:
        if (row := self._yields.row(self._handle)) is not None:
            return msgspec.json.encode(row)
        self._is_over = True
        over = {"id": self._handle.number, "state": "over", "reason": self._handle.reason}
        return msgspec.json.encode(over)


def _wanted(body: bytes) -> YieldWanted:
    if len(body) > _BODY_MAX_BYTES:
        raise ApiError(413, "the body is too large for this", code="body_too_large")
    try:
        return msgspec.json.decode(body, type=YieldWanted)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not valid: {error}", code="invalid_json") from None


def _size(memory: str | int | float) -> int:
    mistakes = fields.Mistakes()
    size = fields.size_bytes(mistakes, "memory", memory)
    if size is None:
        raise ApiError(400, mistakes.lines[0], code="invalid_parameter", param="memory")
    return size


def _wrong(member: str, message: str) -> ApiError:
    return ApiError(400, f"{member} {message}", code="invalid_parameter", param=member)
