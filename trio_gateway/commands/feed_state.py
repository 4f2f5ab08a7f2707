"""FeedState: what `GET /gateway/events` has told until now. Pure."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, NamedTuple

Row = dict[str, Any]
RECENT = 100


class FeedEvent(NamedTuple):
    name: str
    data: Any


async def events_in(lines: AsyncIterable[str]) -> AsyncIterator[FeedEvent]:
    """The events of a stream; comments are left out."""
    name, data = "message", list[str]()
    async for line in lines:
        if not line:
            if data:
                yield FeedEvent(name, json.loads("\n".join(data)))
            name, data = "message", []
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


class FeedState:
    """`engines`, `requests` and so on are by their keys, in the order in which they came.
    `is_admin`: the feed has all of them; otherwise only the reader's own requests, and models."""

    def __init__(self) -> None:
        self.version, self.is_admin = "", True
        self.pools: dict[str, Row] = {}
        self.engines: dict[int, Row] = {}
        self.requests: dict[str, Row] = {}
        self.models: dict[str, Row] = {}
        self.recent: deque[Row] = deque(maxlen=RECENT)
        self.is_complete = False  # a snapshot has come

    def apply(self, event: FeedEvent) -> None:
        data = event.data
        match event.name:
            case "snapshot":
                self._begin(data)
            case "engine":
                self.engines[data["engine"]] = data
            case "engine_gone":
                self.engines.pop(data["engine"], None)
            case "pool":
                self.pools[data["name"]] = data
            case "model":
                self.models[data["name"]] = data
            case "request" if data["stage"] == "done":
                self.requests.pop(data["id"], None)
                self.recent.append(data)
            case "request":
                self.requests[data["id"]] = data

    def _begin(self, data: Row) -> None:
        self.version, self.is_admin = data["version"], data["admin"]
        self.pools = {row["name"]: row for row in data["pools"]}
        self.engines = {row["engine"]: row for row in data["engines"]}
        self.requests = {row["id"]: row for row in data["requests"]}
        self.models = {row["name"]: row for row in data["models"]}
        self.recent = deque(data["recent"], RECENT)
        self.is_complete = True

    def with_stage(self, *stages: str) -> list[Row]:
        return [row for row in self.requests.values() if row["stage"] in stages]
