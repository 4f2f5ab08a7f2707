"""ReloadHandler: `POST /gateway/reload`, the configuration read anew."""

from __future__ import annotations

from trio_gateway.config.loader import ConfigError
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.reloading import Reloader


class ReloadHandler:
    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader

    async def handle_reload(self, endpoint: Endpoint, call: Call) -> Answer:
        """What has changed by it, or the mistakes of a file that changes nothing."""
        key = call.permissions.key
        by = f'the API key "{key}" wants a reload' if key else "a reload is wanted"
        try:
            return json_answer(await self._reloader.reload(by))
        except ConfigError as error:
            message = "\n".join(["the configuration stays as it was:", *error.mistakes])
            raise ApiError(400, message, code="invalid_configuration") from None
