"""FeedHandler: `/gateway/events` and `/gateway/models`, for those who look on."""

from __future__ import annotations

from collections.abc import Sequence

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.overview import Overview
from trio_gateway.server.access.permissions import Permissions
from trio_gateway.server.api import sse
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.feed.feed import Feed
from trio_gateway.server.feed.reader import SIGN_OF_LIFE, FeedReader
from trio_gateway.server.feed.view import View
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.handlers.watching import Watchers
from trio_gateway.server.relay.answer import Answer

_LAST_EVENT_ID = b"last-event-id"


class FeedHandler:
    def __init__(
        self,
        feed: Feed,
        watchers: Watchers,
        overview: Overview,
        models: Sequence[ModelConfig],
    ) -> None:
        self._feed, self._watchers = feed, watchers
        self._overview, self._models = overview, models

    async def handle_events(self, endpoint: Endpoint, call: Call) -> Answer:
        """What the gateway is doing, until the client goes."""
        given = call.header_values(_LAST_EVENT_ID)
        last_id = given[0] if given else call.query("last_event_id") or ""
        with self._feed.reading():
            reader = FeedReader(self._feed, view_of(call.permissions), last_id.strip())
            kind = sse.CONTENT_TYPE.encode()
            return await self._watchers.send(call, kind, reader.next, SIGN_OF_LIFE)

    async def handle_gateway_models(self, endpoint: Endpoint, call: Call) -> Answer:
        view = view_of(call.permissions)
        rows = [self._overview.model_row(model) for model in self._models]
        return json_answer({"models": rows if view.is_admin else view.usable(rows)})


def view_of(permissions: Permissions) -> View:
    return View(permissions.admin, permissions.key, permissions.models)
