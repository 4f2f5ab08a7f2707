"""FormHandler: requests whose body is a multipart form, streamed through to an engine."""

from __future__ import annotations

from trio_gateway.server.api.endpoint import Body, Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.forms.form_type import FORM
from trio_gateway.server.forms.form_upload import FormUpload
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.requests import RequestHandler
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay


class FormHandler:
    """`requests` takes those that come as JSON after all."""

    def __init__(self, preparer: Preparer, relay: Relay, requests: RequestHandler) -> None:
        self._preparer, self._relay, self._requests = preparer, relay, requests

    async def handle_form(self, endpoint: Endpoint, call: Call) -> Answer:
        """A request whose answer is an engine's. Of the form, only its model is dumped."""
        content_types = call.header_values(b"content-type")
        kind = content_types[0].partition(";")[0].strip().lower() if content_types else ""
        if kind != FORM and len(content_types) < 2:
            if endpoint.body is Body.FORM_OR_JSON and _is_json(kind):
                return await self._requests.handle_relayed(endpoint, call)
            raise _not_a_form(endpoint)
        form = FormUpload(call.state.upload, content_types)
        call.state.stack.callback(form.close)
        ask = await self._preparer.prepare_form(
            call.sender_of_form(form.content_type), endpoint, form
        )
        call.begin_dump(endpoint, [f"(a multipart form for {ask.asked})".encode()])
        return await self._relay.respond(ask)


def _is_json(kind: str) -> bool:
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _not_a_form(endpoint: Endpoint) -> ApiError:
    message = f"{endpoint.name} takes a multipart form (Content-Type: {FORM})"
    if endpoint.body is Body.FORM_OR_JSON:
        message += ", or JSON (Content-Type: application/json)"
    return ApiError(400, message, code="invalid_form")
