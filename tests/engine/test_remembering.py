"""What is measured is written down in time, and holds for what it was measured with."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.asking import CHAT, chat
from tests.support.fakes import FakeEngines
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine import remembering
from trio_gateway.engine.ledger.entry import Entry
from trio_gateway.engine.ledger.file import LedgerFile
from trio_gateway.engine.manager import EngineManager

GIVEN = config(model("a"))
OTHER = config(model("a", variant(env={"LLAMA_ARG_THREADS": "3"})))
WITHIN_S = 10.0


class Engines(FakeEngines):
    """A manager that has a ledger."""

    def __init__(self, ledger: LedgerFile) -> None:
        super().__init__()
        self.ledger, self.load_s, self.stop_s = ledger, 0.05, 0.0

    def manager(self, given: GatewayConfig) -> EngineManager:
        kinds = dict.fromkeys(ENGINE_TYPES, self.kind)
        return EngineManager(given, launch=self.launch, kinds=kinds, ledger=self.ledger)


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerFile:
    return LedgerFile(tmp_path / "ledger.json")


@asynccontextmanager
async def running(ledger: LedgerFile, given: GatewayConfig = GIVEN) -> AsyncIterator[Stack]:
    async with trio.open_nursery() as nursery:
        stack = Stack(nursery, Engines(ledger), given)
        await nursery.start(stack.gateway.run)
        async with stack.http:
            yield stack
        stack.gateway.end_now("the test is over")
        nursery.cancel_scope.cancel(reason="the test is over")


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WITHIN_S):
        while True:
            if condition():
                return
            await trio.sleep(0.01)


def load_is(stack: Stack) -> str | None:
    return stack.manager.overview.model_row(stack.gateway.config.models[0]).variants[0].load_is


async def test_it_holds_for_what_it_was_measured_with(ledger: LedgerFile) -> None:
    async with running(ledger) as stack:
        assert (await stack.post(CHAT, chat("a"))).status == 200
        await until(lambda: bool(ledger.read()))  # while it runs: a gateway may be killed
    (entry,) = ledger.read().values()
    assert (entry.name, entry.slots) == ("a:4096", 2)
    async with running(ledger) as stack:
        assert load_is(stack) == "measured"
        stack.gateway.take_over(OTHER)
        assert load_is(stack) is None
        stack.gateway.take_over(GIVEN)
        await until(lambda: load_is(stack) == "measured")
        assert not stack.engines.processes


async def test_a_disk_that_hangs_holds_up_no_start(
    ledger: LedgerFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ends = threading.Event()

    def hang(_: LedgerFile) -> dict[str, Entry]:
        ends.wait(WITHIN_S)
        return {}

    monkeypatch.setattr(remembering, "READ_S", 0.05)
    monkeypatch.setattr(remembering, "FLUSH_S", 0.05)
    monkeypatch.setattr(LedgerFile, "open", hang)
    with trio.fail_after(WITHIN_S / 2):
        async with running(ledger) as stack:
            assert (await stack.post(CHAT, chat("a"))).status == 200
    ends.set()
    (line,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "the disk is too slow" in line.getMessage()


async def test_a_bug_in_it_ends_no_engine(
    ledger: LedgerFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(remembering, "identity_of", broken)
    async with running(ledger) as stack:
        assert (await stack.post(CHAT, chat("a"))).status == 200
        await until(lambda: "a bug in the gateway" in caplog.text)
        assert (await stack.post(CHAT, chat("a"))).status == 200
        assert stack.engines.processes[0] in stack.engines.alive
