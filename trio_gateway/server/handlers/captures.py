"""CapturesHandler: `/gateway/captures`, where an admin has requests recorded for a while."""

from __future__ import annotations

import msgspec

from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.history.recorder import CapturesWanted, Recorder
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.prepare import Preparer

COUNT_MAX, SECONDS_MAX = 1000, 3600.0
_BODY_MAX_BYTES = 4096


class CapturesHandler:
    def __init__(self, recorder: Recorder, preparer: Preparer) -> None:
        self._recorder, self._preparer = recorder, preparer

    async def handle_captures(self, endpoint: Endpoint, call: Call) -> Answer:
        """What was recorded. POST begins anew, DELETE forgets it."""
        if call.method == "POST":
            await self._begin(call)
        elif call.method == "DELETE":
            self._recorder.end("an admin has deleted them")
        recorder = self._recorder
        return json_answer({"recording": recorder.facts(), "captures": recorder.rows()})

    async def _begin(self, call: Call) -> None:
        wanted = _wanted(b"".join(await call.read_pieces()))
        model = self._preparer.find(wanted.model or None, call.permissions).model.name
        by = f'the API key "{call.permissions.key}"' if call.permissions.key else "somebody"
        self._recorder.begin(model, wanted.count, wanted.seconds, by)


def _wanted(body: bytes) -> CapturesWanted:
    if len(body) > _BODY_MAX_BYTES:
        raise ApiError(413, "the body is too large for this", code="body_too_large")
    try:
        wanted = msgspec.json.decode(body, type=CapturesWanted)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not valid: {error}", code="invalid_json") from None
    if not 1 <= wanted.count <= COUNT_MAX:
        raise _out_of_range("count", COUNT_MAX)
    if not 1 <= wanted.seconds <= SECONDS_MAX:
        raise _out_of_range("seconds", SECONDS_MAX)
    return wanted


def _out_of_range(name: str, most: float) -> ApiError:
    message = f"{name} has to be 1 to {most:g}"
    return ApiError(400, message, code="invalid_parameter", param=name)
