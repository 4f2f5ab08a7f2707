"""What handlers return: an Answer of JSON or text, or of an error."""

from __future__ import annotations

from typing import Any

import msgspec

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.http.refusal import refusal_in
from trio_gateway.server.relay.answer import Answer


def answer_of(body: bytes, content_type: bytes) -> Answer:
    return Answer(200, [(b"content-type", content_type)], body)


def json_answer(value: Any) -> Answer:
    return answer_of(msgspec.json.encode(value), b"application/json")


def error_answer(call: Call, error: ApiError) -> Answer:
    """In the shape of the client's API; who looks on is told."""
    refusal = refusal_in(call.scope, error)
    call.state.record.fails(error.code or error.error_type)
    for observer in call.state.observers:
        observer.begins(refusal.status, refusal.headers)
        observer.continues(refusal.body)
    return Answer(*refusal)
