"""What a handler returns: an Answer, JSON, or an error, as Quart's Response."""

from __future__ import annotations

from typing import Any

import msgspec
from quart import Response, request
from werkzeug.datastructures import Headers

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.refusal import refusal_in
from trio_gateway.server.http.scopes import state_of
from trio_gateway.server.relay.answer import Answer


def respond(answer: Answer) -> Response:
    text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    response = Response(answer.body, status=answer.status, headers=Headers(text))
    response.timeout = None  # an answer may take hours
    return response


def respond_json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")


def respond_to_error(error: ApiError) -> Response:
    refusal = refusal_in(request.scope, error)
    for observer in state_of(request).observers:
        observer.begins(refusal.status, refusal.headers)
        observer.continues(refusal.body)
    headers = Headers([(name.decode(), value.decode("latin-1")) for name, value in refusal.headers])
    return Response(refusal.body, status=refusal.status, headers=headers)
