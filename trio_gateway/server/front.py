"""Front: what a request meets, as one configuration has it. A reload makes another.

A request goes on with the front that it came in by, so its rules do not change under it. What
outlives a configuration is the gateway's, and is handed to each front as the `Lasting`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from trio_gateway.config.keepalive import LoadingState
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.catalog import ModelCatalog
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.media_support import MediaSupport
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.models.names import ModelNames
from trio_gateway.server.access.guard import AccessGuard
from trio_gateway.server.aftermath import Aftermath
from trio_gateway.server.budget import Budget
from trio_gateway.server.feed.feed import Feed
from trio_gateway.server.feed.logs import Logs
from trio_gateway.server.fleet.peers import Peers
from trio_gateway.server.handlers.call import Onlookers
from trio_gateway.server.handlers.captures import CapturesHandler
from trio_gateway.server.handlers.choices import ChoicesHandler
from trio_gateway.server.handlers.configuration import ConfigurationHandler
from trio_gateway.server.handlers.feed import FeedHandler
from trio_gateway.server.handlers.forms import FormHandler
from trio_gateway.server.handlers.history import HistoryHandler
from trio_gateway.server.handlers.llamacpp import LlamaCppHandler
from trio_gateway.server.handlers.logs import LogHandler
from trio_gateway.server.handlers.metrics import MetricsHandler
from trio_gateway.server.handlers.models import ModelHandler
from trio_gateway.server.handlers.ollama import OllamaHandler
from trio_gateway.server.handlers.operations import OperationsHandler
from trio_gateway.server.handlers.page import PageHandler
from trio_gateway.server.handlers.peers import PeersHandler
from trio_gateway.server.handlers.reload import ReloadHandler
from trio_gateway.server.handlers.requests import DirectAnswers, Dispatcher, RequestHandler
from trio_gateway.server.handlers.upstream import UpstreamHandler
from trio_gateway.server.handlers.watching import Watchers
from trio_gateway.server.handlers.yields import YieldHandler
from trio_gateway.server.history.history import History
from trio_gateway.server.history.recorder import Recorder
from trio_gateway.server.http.types import AsgiApp
from trio_gateway.server.reading.readers import Readers
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.relay.cache_watch import CacheWatch
from trio_gateway.server.relay.choices import Choices, Homes
from trio_gateway.server.relay.early_answer import EarlyAnswers
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay
from trio_gateway.server.relay.websocket import WebSocketRelay
from trio_gateway.server.reloading import Reloader


@dataclass(frozen=True)
class Lasting:
    """What fronts share. `others`: answers what is not answered directly. `under_way`: requests of
    each key, by its name. `homes`: which models know conversations."""

    manager: EngineManager
    counter: TokenCounter
    media: MediaSupport
    readers: Readers
    reloader: Reloader
    peers: Peers
    book: RequestBook
    history: History
    recorder: Recorder
    budget: Budget
    feed: Feed
    logs: Logs
    feed_watchers: Watchers
    log_watchers: Watchers
    yield_watchers: Watchers
    onlookers: Onlookers
    aftermath: Aftermath
    others: AsgiApp
    early_answers: EarlyAnswers
    cache_watch: CacheWatch
    metrics: MetricsHandler
    closing: trio.Event
    under_way: dict[str, int] = field(default_factory=dict)
    homes: Homes = field(default_factory=Homes)


class Front:
    """`guard`: an ASGI app for requests and WebSockets whose scopes have their RequestState."""

    def __init__(self, config: GatewayConfig, lasting: Lasting) -> None:
        self.config = config
        server, manager = config.server, lasting.manager
        self.selector = ModelSelector(config, manager.overview, lasting.counter)
        self.names = ModelNames(config, manager.overview.contexts_of)
        reasons = server.loading_state is LoadingState.REASONING
        self.choices = Choices(config.choices, manager.overview, lasting.homes)
        self.preparer = Preparer(
            self.names, manager.overview, self.selector,
            media=lasting.media, watch=lasting.cache_watch, choices=self.choices, reasons=reasons,
        )  # fmt: skip
        self.relay = Relay(
            manager, self.selector, self.preparer, lasting.early_answers,
            server.stream_keepalive_style,
            reasons=reasons, hides_cached_tokens=server.hide_cached_tokens,
        )  # fmt: skip
        self.dispatcher = Dispatcher(lasting.closing, lasting.book, *self._handlers(lasting))
        self.guard: AsgiApp = AccessGuard(
            DirectAnswers(self.dispatcher, lasting.onlookers, lasting.others),
            WebSocketRelay(self.preparer, self.relay, lasting.closing, lasting.book),
            server,
            lasting.under_way,
        )

    def _handlers(self, lasting: Lasting) -> tuple[object, ...]:
        config, manager = self.config, lasting.manager
        catalog = ModelCatalog(manager.overview)
        preparer, relay, selector = self.preparer, self.relay, self.selector
        counter, readers = lasting.counter, lasting.readers
        requests = RequestHandler(preparer, relay, readers)
        return (
            requests,
            FormHandler(preparer, relay, requests),
            LlamaCppHandler(config, manager, preparer, relay),
            UpstreamHandler(manager, self.names, preparer, relay, readers),
            ModelHandler(config, manager, catalog, counter, preparer, relay),
            HistoryHandler(lasting.book, lasting.history, lasting.feed.composer),
            CapturesHandler(lasting.recorder, preparer),
            ChoicesHandler(self.choices, self.names),
            PeersHandler(lasting.peers),
            ConfigurationHandler(config, lasting.reloader),
            ReloadHandler(lasting.reloader),
            YieldHandler(config, manager.yields, lasting.yield_watchers),
            lasting.metrics,
            OperationsHandler(
                manager, selector, counter, preparer, lasting.budget, readers, lasting.aftermath
            ),
            FeedHandler(
                lasting.feed,
                lasting.feed_watchers,
                lasting.logs,
                self.names,
            ),
            LogHandler(lasting.logs, lasting.log_watchers, self.names),
            OllamaHandler(config, manager, catalog, preparer, relay, readers),
            PageHandler(is_on=config.server.page),
        )
