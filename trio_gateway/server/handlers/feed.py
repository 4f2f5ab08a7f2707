"""FeedHandler: `/gateway/events` and `/gateway/models`, for those who look on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trio_gateway.models.names import ModelNames
from trio_gateway.server.access.permissions import Permissions
from trio_gateway.server.api import sse
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.feed.feed import Feed
from trio_gateway.server.feed.followed_lines import FollowedLines
from trio_gateway.server.feed.logs import Logs
from trio_gateway.server.feed.reader import SIGN_OF_LIFE, FeedReader
from trio_gateway.server.feed.view import View
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.logs import count_of, sources_of
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.handlers.watching import Watchers
from trio_gateway.server.relay.answer import Answer

_LAST_EVENT_ID = b"last-event-id"


class FeedHandler:
    def __init__(
        self,
        feed: Feed,
        watchers: Watchers,
        logs: Logs,
        names: ModelNames,
    ) -> None:
        self._feed, self._watchers, self._logs = feed, watchers, logs
        self._names = names

    async def handle_events(self, endpoint: Endpoint, call: Call) -> Answer:
        """What the gateway is doing, until the client goes; for an admin with `?logs=` also what is
        written to those logs."""
        given = call.header_values(_LAST_EVENT_ID)
        last_id = given[0] if given else call.query("last_event_id") or ""
        with self._feed.reading(), self._lines(call) as lines:
            reader = FeedReader(self._feed, view_of(call.permissions), last_id.strip(), lines)
            kind = sse.CONTENT_TYPE.encode()
            return await self._watchers.send(call, kind, reader.next, SIGN_OF_LIFE)

    @contextmanager
    def _lines(self, call: Call) -> Iterator[FollowedLines | None]:
        """Raises ApiError: 403, logs are an admin's; 404, there is no such log; 400."""
        wanted, count = call.queries("logs"), count_of(call.query("lines"))
        if not wanted:
            yield None
            return
        if not call.permissions.admin:
            message = "?logs= needs an admin's key (admin = true in server.api_keys)"
            raise ApiError(403, message, "permission_error", code="admin_only", param="logs")
        logs = [sources_of(self._names, [name]) for name in dict.fromkeys(wanted)]
        with self._logs.followed(frozenset().union(*logs)) as reader:
            said = [line for sources in logs for line in self._logs.last(sources, count)]
            yield FollowedLines(reader, sorted(said, key=lambda line: line.at_s))

    async def handle_gateway_models(self, endpoint: Endpoint, call: Call) -> Answer:
        view = view_of(call.permissions)
        rows = [*self._feed.composer.models().values()]
        return json_answer({"models": rows if view.is_admin else view.usable(rows)})


def view_of(permissions: Permissions) -> View:
    return View(permissions.admin, permissions.key, permissions.models)
