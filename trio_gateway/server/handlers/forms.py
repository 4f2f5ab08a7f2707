"""FormHandler: requests whose body is a multipart form, streamed through to an engine."""

from __future__ import annotations

from quart import Response, request

from trio_gateway.server.api.endpoints import Body, Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.forms.form_upload import FormUpload
from trio_gateway.server.handlers.incoming import Incoming
from trio_gateway.server.handlers.requests import RequestHandler
from trio_gateway.server.handlers.responses import respond
from trio_gateway.server.http.scopes import state_of
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay

_FORM = "multipart/form-data"


class FormHandler:
    """`requests` takes those that come as JSON after all."""

    def __init__(
        self, incoming: Incoming, preparer: Preparer, relay: Relay, requests: RequestHandler
    ) -> None:
        self._incoming, self._preparer, self._relay = incoming, preparer, relay
        self._requests = requests

    async def handle_form(self, endpoint: Endpoint) -> Response:
        """A request whose answer is an engine's. Of the form, only its model is dumped."""
        state = state_of(request)
        if request.mimetype != _FORM:
            if endpoint.body is Body.FORM_OR_JSON and request.is_json:
                return await self._requests.handle_relayed(endpoint)
            raise _not_a_form(endpoint)
        form = FormUpload(state.upload, request.headers.get("Content-Type", ""))
        state.stack.callback(form.close)
        ask = await self._preparer.prepare_form(self._incoming.sender(endpoint), endpoint, form)
        self._incoming.begin_dump(endpoint, f"(a multipart form for {ask.asked})".encode())
        return respond(await self._relay.respond(ask))


def _not_a_form(endpoint: Endpoint) -> ApiError:
    message = f"{endpoint.name} takes a multipart form (Content-Type: {_FORM})"
    if endpoint.body is Body.FORM_OR_JSON:
        message += ", or JSON (Content-Type: application/json)"
    return ApiError(400, message, code="invalid_form")
