"""Gateway: the ASGI app with everything behind it, and the nursery of what it owns.

The composition root: which parts there are, and who is handed which, is said here, and in
`front.py` for what goes by one configuration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_gateway.config.history_schema import HistoryConfig
from trio_gateway.config.schema import GatewayConfig, ServerConfig
from trio_gateway.engine.ledger.file import own_ledger
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.process.runs import own_runs
from trio_gateway.engine.scheduling.model_load import ModelLoad
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.counting.vocabulary import Vocabulary
from trio_gateway.models.media_support import MediaSupport
from trio_gateway.server.access.well_formed import fault_of
from trio_gateway.server.aftermath import Aftermath
from trio_gateway.server.budget import Budget, default_file_bytes, default_memory_bytes
from trio_gateway.server.dumps import DumpWriter
from trio_gateway.server.feed.composer import Composer
from trio_gateway.server.feed.feed import Feed
from trio_gateway.server.feed.logs import Logs
from trio_gateway.server.fleet.peers import Peers
from trio_gateway.server.front import Front, Lasting
from trio_gateway.server.handlers.call import Onlookers
from trio_gateway.server.handlers.metrics import MetricsHandler
from trio_gateway.server.handlers.routes import quart_app
from trio_gateway.server.handlers.watching import Watchers
from trio_gateway.server.history.history import History
from trio_gateway.server.history.recorder import Recorder
from trio_gateway.server.http.refusal import refusal_in
from trio_gateway.server.http.scopes import RequestScopes
from trio_gateway.server.http.types import AsgiApp, Receive, Scope, Send
from trio_gateway.server.http.upload import Uploads
from trio_gateway.server.metrics.parts import Parts
from trio_gateway.server.preload import preload, to_preload
from trio_gateway.server.reading.readers import Readers
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.relay.cache_watch import CacheWatch
from trio_gateway.server.relay.early_answer import EarlyAnswers
from trio_gateway.server.relay.websocket import with_key_as_header
from trio_gateway.server.reloading import Reloader
from trio_gateway.server.traces.tracing import Tracing

if TYPE_CHECKING:
    from trio_gateway.server.history.file import HistoryFile


class Gateway:
    """Everything behind the listeners. An ASGI app; `run` owns its tasks."""

    def __init__(self, config: GatewayConfig, manager: EngineManager | None = None) -> None:
        self.config = config
        self.manager = manager or EngineManager(config, ledger=own_ledger(), runs=own_runs())
        reaper = self.manager.reaper
        # Helpers that start later look at it again.
        secrets = self._secrets = set(config.secret_variables)
        self.bus = self.manager.bus
        server, overview = config.server, self.manager.overview
        self.book = RequestBook(self.bus, server.history.requests, server.session_headers)
        self._tracing = Tracing(self.bus, self.book, server.traces)
        self.history = History(self.bus, self.book, _history_file(server.history))
        self._history_runs = self.history.has_file  # and goes on without one
        self._vocabulary = Vocabulary(reaper, secrets)
        self.closing = trio.Event()
        self._aftermath = Aftermath()
        self.shutdown_grace_s = server.shutdown_grace_s  # hypercorn knows this one
        self.media = MediaSupport()
        self._readers = Readers(reaper, secrets, self.closing, self.media)
        self.counter = TokenCounter(overview, self._vocabulary, reaper, secrets)
        self.budget = Budget(*limits_of(server))
        self._dumps = DumpWriter(server.dumps_dir, self.budget, clear=server.clear_dumps_on_start)
        composer = Composer(overview, self.book, config, self.budget.facts)
        self.recorder = Recorder(self.bus)
        composer.captures = self.recorder.facts
        others = self.manager.others
        self.feed = Feed(self.bus, self.book, composer, others)
        self._logs = Logs(self.bus, self.manager.lines)
        self._watchers = Watchers("the feed"), Watchers("logs"), Watchers("yields")
        self._uploads = Uploads(server.max_body_bytes, server.limits.body_timeout_s)
        self._early_answers = EarlyAnswers(server.stream_keepalive_s)
        self._cache_watch = CacheWatch(shows_excerpts=server.cache_break_excerpts)
        self.peers = Peers(config, self._note_elsewhere)
        parts = Parts(
            self.manager, self.book, self.budget, self.feed, self._logs, self.history, self._dumps,
            self._tracing.tally, self.peers,
        )  # fmt: skip
        self._metrics = MetricsHandler(parts, others, server.queue_timeout_s)
        self.reloader = Reloader(config, self.take_over, self.closing, self.peers.compose)
        self.peers.take_over = partial(self.reloader.recompose, self._take_over_peers)
        self._lasting = self._what_lasts()
        self.front = Front(config, self._lasting)
        self._scopes: AsgiApp = RequestScopes(self._enter, self._uploads, self.budget, self.book)
        self._nursery: trio.Nursery | None = None

    def _what_lasts(self) -> Lasting:
        onlookers = Onlookers(self._dumps, self.recorder)
        return Lasting(
            manager=self.manager,
            counter=self.counter,
            media=self.media,
            readers=self._readers,
            reloader=self.reloader,
            peers=self.peers,
            book=self.book,
            history=self.history,
            recorder=self.recorder,
            budget=self.budget,
            feed=self.feed,
            logs=self._logs,
            feed_watchers=self._watchers[0],
            log_watchers=self._watchers[1],
            yield_watchers=self._watchers[2],
            onlookers=onlookers,
            aftermath=self._aftermath,
            others=quart_app(self.closing, lambda: self.front.dispatcher, onlookers),
            early_answers=self._early_answers,
            cache_watch=self._cache_watch,
            metrics=self._metrics,
            closing=self.closing,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _accept_lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            scope = with_key_as_header(scope)
        await self._scopes(scope, receive, send)

    def _enter(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """A request or a WebSocket whose scope has its RequestState."""
        if scope["type"] == "http" and (fault := fault_of(scope)) is not None:
            return refusal_in(scope, fault).send(scope, send)
        return self.front.guard(scope, receive, send)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the engines, the dumps, the history and the traces until cancelled. After
        `begin_shutdown` the engines end by themselves (`manager.stopped`); what is written outlives
        them, for the last answers' sake."""
        self._aftermath.look(self.config.server.history.file)
        with self._logs.hearing():
            async with trio.open_nursery() as nursery:
                await nursery.start(self._dumps.run)
                if self._history_runs:
                    await nursery.start(self.history.run)
                await nursery.start(self._tracing.run)
                self._nursery = nursery
                await nursery.start(self.manager.run)
                if (reaper := self.manager.reaper) is not None:
                    self._aftermath.tell(reaper.left, self.manager.kv.swept)
                await nursery.start(self._early_answers.run)
                await nursery.start(self._vocabulary.run)
                await nursery.start(self._readers.run)
                await nursery.start(self.feed.run)
                await nursery.start(self.recorder.run)
                await nursery.start(self.peers.run)
                nursery.start_soon(self.media.read_files, self.config.models)
                wanted = to_preload(self.config)
                nursery.start_soon(preload, wanted, self.front.names, self.manager)
                task_status.started()
                await trio.sleep_forever()

    def take_over(self, config: GatewayConfig) -> None:
        """Go by another configuration from now on. Requests under way keep their front, and
        engines of unchanged variants live on."""
        if self.closing.is_set():
            return
        front, server, before = Front(config, self._lasting), config.server, self.config
        changed = {m.name for m in before.models} - {
            m.name for m in config.models if m in before.models
        }
        self.config, self.front = config, front
        self._secrets |= config.secret_variables
        self.media.forget()
        self.counter.forget(changed)
        self._uploads.max_bytes = server.max_body_bytes
        self._uploads.timeout_s = server.limits.body_timeout_s
        self.shutdown_grace_s = server.shutdown_grace_s
        self._early_answers.keep_alive_after(server.stream_keepalive_s)
        self.budget.memory.limit, self.budget.files.limit = limits_of(server)
        self._cache_watch.shows_excerpts = server.cache_break_excerpts
        self._metrics.expect(server.queue_timeout_s)
        self.book.name_conversations(server.session_headers)
        self.book.keep(server.history.requests)
        self._dumps.folder = server.dumps_dir
        self._take_over_history(before.server.history, server.history)
        self._tracing.take_over(server.traces)
        self.feed.composer.take_over(config)
        self.peers.go_by(config)
        if server.access != before.server.access:
            for watchers in self._watchers[:2]:  # another program's memory stays its own
                watchers.turn_out("the keys were changed")
        self.manager.reconfigure(config)
        if self._nursery is not None:
            self._nursery.start_soon(self.media.read_files, config.models)
            if wanted := to_preload(config, before):
                self._nursery.start_soon(preload, wanted, front.names, self.manager)

    def _take_over_peers(self, config: GatewayConfig) -> None:
        before = self.front.choices
        self.take_over(config)
        self.front.choices.keep_pins(before)

    def _note_elsewhere(self, states: Mapping[str, ModelLoad]) -> None:
        self.manager.overview.elsewhere = states

    def _take_over_history(self, before: HistoryConfig, now: HistoryConfig) -> None:
        if (now.file, now.keep_s) == (before.file, before.keep_s):
            return
        self.history.take_over(_history_file(now))
        if self.history.has_file and not self._history_runs and self._nursery is not None:
            self._history_runs = True
            self._nursery.start_soon(self.history.run)

    def begin_shutdown(self) -> None:
        """No new requests, no more waiting; streams under way have `shutdown_grace` to end."""
        if self.closing.is_set():
            return
        self.closing.set()
        for watchers in self._watchers:
            watchers.close()
        if self._nursery is not None:
            self._nursery.start_soon(self._end_grace)
        self._uploads.close()
        self.manager.begin_shutdown()

    async def _end_grace(self) -> None:
        await trio.sleep(self.shutdown_grace_s)
        self.manager.abort_leases("the gateway is stopping")

    def end_now(self, reason: str) -> None:
        """No grace: end the streams, kill the engines."""
        self.begin_shutdown()
        self.manager.abort_leases("the gateway is stopping")
        self.manager.kill_engines(reason)


def _history_file(history: HistoryConfig) -> HistoryFile | None:
    if history.file is None:
        return None
    # Imported here: SQLite takes 1 MB.
    from trio_gateway.server.history.file import HistoryFile

    return HistoryFile(history.file, history.keep_s)


def limits_of(server: ServerConfig) -> tuple[int, int]:
    """How many bytes of clients may be held, in memory and in files."""
    memory, files = server.max_buffered_bytes, server.max_spooled_bytes
    return (
        default_memory_bytes() if memory is None else memory,
        default_file_bytes(server.max_body_bytes) if files is None else files,
    )


async def _accept_lifespan(receive: Receive, send: Send) -> None:
    """The lifespan of an app whose tasks live elsewhere."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
