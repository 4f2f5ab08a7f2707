"""The carry-over of one model without a gateway: a real store, engines' slots in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.support.fake_slots import FakeSlots, SlotClient, SlotEngines, ids_of, words
from tests.support.schema_values import model, variant
from trio_gateway.config.schema import EngineTimeouts, KvCarryoverConfig, VariantConfig
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.kv.carryover import KvCarryover
from trio_gateway.engine.kv.conversations import KvMove
from trio_gateway.engine.kv.prompt import Prompt
from trio_gateway.engine.kv.slot_owners import SlotOwners
from trio_gateway.engine.kv.slots import EngineKv
from trio_gateway.engine.scheduling.events import VariantKey

STOP_S = 10.0
ONE_CACHE = 10**6  # tokens that all slots of an engine share
BYTES_PER_TOKEN = 12  # of a file that a fake engine saves, about


def prompt(text: str, owner: str = "") -> Prompt:
    return Prompt("completions", msgspec.json.encode({"prompt": text}), owner)


class Running:
    """An engine that was started, as its EngineKv sees it."""

    def __init__(self, kv: EngineKv, client: SlotClient, args: list[str], slots: FakeSlots) -> None:
        self.kv, self.client, self.args, self.slots = kv, client, args, slots

    def holds(self, *texts: str) -> bool:
        """Whether its slots hold these, and nothing else."""
        return self.slots.held == [ids_of(text) for text in texts]

    async def ask(self, text: str, owner: str = "") -> KvMove:
        """A request, with the conversation in its slot that it continues."""
        move = await self.kv.switch(self.client, prompt(text, owner), 1)
        self.slots.take(text)
        return move

    async def save(self) -> int:
        await self.kv.save(self.client)
        return self.kv.saved_tokens


class World:
    """Engines of one model `m`, one after the other. `faults` say how their slots behave."""

    def __init__(self, folder: Path, owner: KvCarryover) -> None:
        self.owner, self.folder, self.store = owner, folder, folder / "kv"
        self.engines = SlotEngines()
        self.faults = self.engines.faults
        self.gguf = folder / "m.gguf"
        if not self.gguf.exists():
            self.replace_model(b"GGUF")

    @property
    def files(self) -> list[str]:
        """What is in the store's folder, without its lock: the suffixes."""
        return sorted(
            p.suffix for p in self.store.rglob("*") if p.is_file() and p.suffix != ".lock"
        )

    @property
    def cache(self) -> Path:
        """The one file that is kept."""
        (path,) = self.store.glob("*.bin")
        return path

    def replace_model(self, data: bytes) -> None:
        self.gguf.write_bytes(data)

    def variant(
        self, *args: str, context: int = 4096, binary: str = "llama-server"
    ) -> VariantConfig:
        return variant(
            context,
            args=("-m", str(self.gguf), *args),
            binary=binary,
            workdir=self.folder,
            timeouts=EngineTimeouts(stop_s=STOP_S),
        )

    async def start(
        self,
        *args: str,
        slots: int = 1,
        shared: int | None = ONE_CACHE,
        context: int = 4096,
        waiting: Sequence[str] = (),
        whose: Sequence[str] = (),
        owners: SlotOwners | None = None,
        build: str = "b1",
        binary: str = "llama-server",
        name: str = "m",
        **fields: Any,
    ) -> Running:
        """Start an engine, and let it restore. The texts in `waiting` wait as tickets 0, 1, …,
        each with the key of the same place in `whose`."""
        v = self.variant(*args, context=context, binary=binary)
        m = model(name, v, **fields)
        names = whose or [""] * len(waiting)
        prompts = dict(enumerate(map(prompt, waiting, names)))
        if owners is not None:
            owners.begin(slots)
        key = VariantKey(name, v.name)
        kv = EngineKv(self.owner, key, m, v, self.engines.kind, lambda: prompts, owners)
        argv = kv.launch_args(v.args)
        self.engines.slot_count = slots
        port = len(self.engines.slots) + 1
        opened = self.engines.open_slots(argv, port, self.folder)
        client = self.engines.client_type(f"http://127.0.0.1:{port}")
        assert isinstance(client, SlotClient)
        await kv.restore(client, EngineFacts(slots, context, build=build), context, slots, shared)
        return Running(kv, client, argv, opened)

    async def saved(self, *texts: str, slot_args: Sequence[str] = (), **how: Any) -> int:
        """An engine that served these texts was stopped; the tokens that were saved."""
        engine = await self.start(*slot_args, slots=len(texts), **how)
        for slot, text in enumerate(texts):
            engine.slots.held[slot] = []
            engine.slots.take(text)
        return await engine.save()

    def measure(self, *, prompt_speed: float, disk_speed: float) -> None:
        """Tokens/s and bytes/s, as earlier answers and saves said."""
        costs = self.owner.costs("m")
        costs.note_usage(Usage(1000, read_tokens=1000, read_ms=1000 / prompt_speed * 1000))
        size = 1000 * BYTES_PER_TOKEN
        costs.note_save(1000, size, size / disk_speed * 1000)


@asynccontextmanager
async def running(folder: Path, **fields: Any) -> AsyncIterator[World]:
    """The fields are those of KvCarryoverConfig."""
    owner = KvCarryover(KvCarryoverConfig(**{"directory": folder / "kv", **fields}))
    async with trio.open_nursery() as nursery:
        await nursery.start(owner.run)
        yield World(folder, owner)
        nursery.cancel_scope.cancel(reason="the test is over")


def said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in record.getMessage() for record in caplog.records)


A, B, C = words("a"), words("b"), words("c")
