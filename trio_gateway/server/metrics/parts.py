"""Parts: those of the gateway that are asked for their numbers."""

from __future__ import annotations

from typing import NamedTuple

from trio_gateway.engine.manager import EngineManager
from trio_gateway.server.budget import Budget
from trio_gateway.server.dumps import DumpWriter
from trio_gateway.server.feed.feed import Feed
from trio_gateway.server.feed.logs import Logs
from trio_gateway.server.fleet.peers import Peers
from trio_gateway.server.history.history import History
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.traces.tally import TraceTally


class Parts(NamedTuple):
    """`dumps`: None if none are written."""

    manager: EngineManager
    book: RequestBook
    budget: Budget
    feed: Feed
    logs: Logs
    history: History
    dumps: DumpWriter | None
    traces: TraceTally
    peers: Peers
