"""Engines and a network that exist in memory only, so that a virtual clock can drive them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import trio
import trio.testing

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import (
    EngineOptions,
    GatewayConfig,
)
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.facts import EngineFacts, Health
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.errors import EngineDisconnected, EngineUnreachable
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange, Header
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.process.process import Ending, StopReport


class FakeProcess:
    """A process that exits when it is told to."""

    def __init__(self, world: FakeEngines, number: int) -> None:
        self._world = world
        self.pid = number
        self.started_at = trio.current_time()
        self.exited = trio.Event()
        self.status = "running"
        self.stopped_at: float | None = None
        self.killed = False
        self.returncode: int | None = None
        self.exchanges: set[FakeExchange] = set()
        self.copies = 1

    def __repr__(self) -> str:
        return f"<FakeProcess {self.pid} {self.status}>"

    def last_lines(self, count: int = 200) -> list[str]:
        return ["the fake engine's last line"]

    async def copies_changed(self) -> int:
        return await trio.sleep_forever()

    def owns_port(self, port: int) -> bool | None:
        return self._world.owns_port

    async def stop(self, timeout_s: float) -> StopReport:
        self.stopped_at = trio.current_time()
        if not self.exited.is_set():
            await trio.sleep(self._world.stop_s)
            self.exit("exited with code 0")
        return StopReport(Ending.STOPPED, trio.current_time() - self.stopped_at)

    def exit(self, status: str = "exited with code 1") -> None:
        self.status = status
        self.exited.set()
        for exchange in [*self.exchanges]:
            exchange.abort(EngineDisconnected("the connection broke"))

    async def kill(self) -> StopReport:
        """As SIGKILL: at once, also if the engine hangs."""
        self.killed = True
        self.exit("was killed by signal 9")
        return StopReport(Ending.KILLED, 0.0)


class FakeExchange:
    """An answer that is played from a script: bytes, or seconds to wait before the next bytes."""

    why_there = ""

    def __init__(
        self, client: FakeClient, script: Iterable[bytes | float], status: int, stream: bool
    ) -> None:
        self.client, self.status = client, status
        self.script = iter(script)
        self.complete = False
        kind = b"text/event-stream" if stream else b"application/json"
        self.headers: list[Header] = [(b"content-type", kind)]
        if not stream and not client.world.chunked:
            self.headers.append((b"content-length", b"2"))
        self.headers += client.world.more_headers
        self.closed_at: float | None = None
        self._error: Exception | None = None
        self._scope = trio.CancelScope()

    async def receive(self) -> bytes:
        if self._error is None:
            with trio.CancelScope() as self._scope:
                for step in self.script:
                    if isinstance(step, bytes):
                        self.client.pulse.beats += 1
                        return step
                    await trio.sleep(step)
                self.complete = True
                return b""
        assert self._error is not None
        raise self._error

    def abort(self, error: Exception) -> None:
        self._error = error
        self._scope.cancel(reason=str(error))

    def close(self) -> None:
        if self.closed_at is None:
            self.closed_at = trio.current_time()


class FakeKind(EngineKind):
    endpoints = frozenset({"chat/completions", "completions"})

    def __init__(self, world: FakeEngines) -> None:
        self.world = world

    def client(self, base_url: str, options: EngineOptions) -> EngineClient:
        return self.world.client_type(base_url, options)

    def launch_args(self, args: Sequence[str], host: str, port: int) -> list[str]:
        return [*args, "--port", str(port)]

    def listen_host(self, args: EngineArgs) -> str:
        return "127.0.0.1"

    def fixed_address(self, args: EngineArgs) -> tuple[str, int] | None:
        return None

    def shared_tokens(self, args: EngineArgs, facts: EngineFacts) -> int | None:
        return self.world.shared_tokens


_LOOKED_AT_BYTES = 1 << 20


class FakeClient(EngineClient):
    """Speaks to a FakeProcess. Made by FakeEngines.client_type."""

    world: FakeEngines

    @property
    def process(self) -> FakeProcess | None:
        return self.world.by_port.get(self.port)

    async def check_health(self, timeout_s: float) -> Health:
        process = self.process
        self.world.health_checks.append(trio.current_time())
        if (sick := self.world.sick) is not None:
            if sick.silent:
                await trio.sleep(timeout_s)
            return sick
        loaded = process is not None and trio.current_time() >= (
            process.started_at + self.world.load_s
        )
        return Health(loaded, "fake")

    async def read_facts(self, timeout_s: float) -> EngineFacts:
        return self.world.facts

    async def count_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        self.world.count_requests.append(body)
        await trio.sleep(self.world.count_s)
        return self.world.counted

    @asynccontextmanager
    async def forward_request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes | BodySource
    ) -> AsyncIterator[Exchange]:
        process = self.process
        if process is None or process.exited.is_set():
            raise EngineUnreachable("nothing answers")
        if self.world.refusals:
            error = self.world.refusals.pop(0)
            self._note_refusal(error, body)
            raise error
        self._note_answer()
        body = await whole_of(body)
        self.world.requests.append((target, dict(headers), body))
        script = self.world.next_script()
        # Of a large one the beginning: to look at all of it would hold up the whole test.
        stream = b'"stream":true' in body[:_LOOKED_AT_BYTES].replace(b" ", b"")
        status = self.world.statuses.pop(0) if self.world.statuses else self.world.status
        exchange = FakeExchange(self, script, status, stream and status == 200)
        self.world.exchanges.append(exchange)
        typed = cast(Exchange, exchange)
        process.exchanges.add(exchange)
        try:
            with self.connections.held(typed):
                yield typed
        finally:
            process.exchanges.discard(exchange)


async def whole_of(body: bytes | BodySource) -> bytes:
    """What an engine gets of a request's body."""
    if isinstance(body, bytes):
        return body
    pieces = []
    while piece := await body.receive():
        pieces.append(piece)
    return b"".join(pieces)


class FakeEngines:
    """All fake processes, and how they behave from now on."""

    def __init__(self) -> None:
        self.load_s, self.stop_s = 1.0, 0.5
        self.owns_port: bool | None = True
        self.sick: Health | None = None  # what health checks get; a silent one hangs
        self.health_checks: list[float] = []  # when each was made
        self.refusals: list[Exception] = []  # for the next requests, instead of an answer
        self.facts = EngineFacts(slots=2, context=None)
        self.shared_tokens: int | None = None
        self.counted: int | None = None
        self.count_s = 0.0
        self.count_requests: list[bytes] = []
        self.status = 200
        self.statuses: list[int] = []  # of the next answers, before that; not 200: no stream
        self.scripts: list[Iterable[bytes | float]] = []
        self.more_headers: list[Header] = []
        self.chunked = False  # answers that are not streams have no length either
        self.processes: list[FakeProcess] = []
        self.by_port: dict[int, FakeProcess] = {}
        self.requests: list[tuple[str, dict[bytes, bytes], bytes]] = []
        self.exchanges: list[FakeExchange] = []
        self.environments: list[dict[str, str]] = []  # of the processes
        self.launched = trio.Event()
        self.client_type: type[EngineClient] = type(
            "BoundFakeClient", (FakeClient,), {"world": self}
        )
        self.kind = FakeKind(self)

    @property
    def alive(self) -> list[FakeProcess]:
        return [p for p in self.processes if not p.exited.is_set()]

    def next_script(self) -> Iterable[bytes | float]:
        return self.scripts.pop(0) if self.scripts else [b"{}"]

    @asynccontextmanager
    async def launch(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AsyncIterator[FakeProcess]:
        self.environments.append(dict(env))
        process = FakeProcess(self, len(self.processes) + 1)
        self.processes.append(process)
        self.by_port[int(argv[argv.index("--port") + 1])] = process
        self.launched.set()
        try:
            yield process
        finally:
            process.exit("killed" if not process.exited.is_set() else process.status)

    def manager(self, given: GatewayConfig) -> EngineManager:
        kinds = dict.fromkeys(ENGINE_TYPES, self.kind)
        return EngineManager(given, launch=self.launch, kinds=kinds)
