"""Engines in memory (tests/support/fakes.py) whose slots are real files."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from tests.support.fakes import FakeClient, FakeEngines, FakeKind, FakeProcess
from tests.support.stack import Stack
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.config.server_options import SLOT_SAVE_PATH
from trio_gateway.engine.clients.facts import SlotFile, SlotRefused, SlotState, SlotUnanswered
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.engine.http.exchange import Exchange, Header
from trio_gateway.engine.kv.policy import shared_prefix

T = TypeVar("T")

NO_ANSWER = "the engine gave no answer"
WRAPPER = "docker"  # the binary of an engine that does not know --slot-save-path
_HEAD = struct.Struct("<III3i")


def words(name: str, count: int = 300) -> str:
    """A text of that many tokens; it shares none with one of another name."""
    return " ".join(f"{name}{i}" for i in range(count))


def ids_of(text: str) -> list[int]:
    """A token for each word."""
    return [zlib.crc32(word.encode()) >> 1 for word in text.split()]


def text_of(body: bytes) -> str:
    """The prompt of a chat or of a completion."""
    fields = msgspec.json.decode(body)
    messages = fields.get("messages")
    return fields["prompt"] if messages is None else " ".join(m["content"] for m in messages)


def cache_of(ids: Sequence[int]) -> bytes:
    """What llama-server saves of these tokens: a file of version 4, with a short cache."""
    head = _HEAD.pack(0x67677371, 4, len(ids) + 4, -1, 1, len(ids))
    return head + struct.pack(f"<{len(ids)}i", *ids) + bytes(4 + 8 * len(ids))


async def run_inline(work: Callable[..., T], *args: Any, **_: Any) -> T:
    """In place of `trio.to_thread.run_sync`: a virtual clock would not wait for a thread."""
    await trio.lowlevel.checkpoint_if_cancelled()
    result = work(*args)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return result


async def _nothing(path: Path) -> None:
    await trio.lowlevel.checkpoint()


async def hang(path: Path) -> None:
    await trio.sleep_forever()


async def refuse(path: Path) -> None:
    await trio.lowlevel.checkpoint()
    raise SlotRefused("no space left on device")


class SlotFaults:
    """How the slots of all engines behave from now on. `before_save` and `before_restore` get the
    file's path; they may hang or raise."""

    def __init__(self) -> None:
        self.are_shown = True
        self.before_save: Callable[[Path], Awaitable[None]] = _nothing
        self.before_restore: Callable[[Path], Awaitable[None]] = _nothing
        self.after_save: Callable[[Path], None] = lambda path: None
        self.tokens_lost = 0  # by a restore
        self.at_work: dict[int, int] = {}  # slots, with the tokens of their prompts found there


class FakeSlots:
    """One process's: `held` are the ids of the tokens in each slot."""

    def __init__(self, faults: SlotFaults, folder: Path | None, count: int) -> None:
        self.faults, self.folder = faults, folder
        self.held: list[list[int]] = [[] for _ in range(count)]
        self._asked: set[int] = set()
        self.looks = 0  # at its slots, each of which wakes an engine that sleeps

    def take(self, text: str) -> int:
        """A request: how much of its prompt was found in the slot that it got."""
        ids = ids_of(text)
        shared = [(shared_prefix(held, ids), not held) for held in self.held]
        slot = shared.index(max(shared))
        self.held[slot] = ids
        self._asked.add(slot)
        return shared[slot][0]

    def states(self) -> list[SlotState]:
        """As /slots: one of which nothing was asked does not say what it holds."""
        self.looks += 1
        asked = self._asked
        return [
            SlotState(i, len(h) if i in asked else None, self.faults.at_work.get(i))
            for i, h in enumerate(self.held)
        ]

    async def save(self, slot: int, filename: str) -> SlotFile:
        path = self._path(filename)
        await self.faults.before_save(path)
        data = cache_of(self.held[slot])
        path.write_bytes(data)
        self.faults.after_save(path)
        return SlotFile(len(self.held[slot]), len(data), 10.0)

    async def restore(self, slot: int, filename: str) -> SlotFile:
        path = self._path(filename)
        await self.faults.before_restore(path)
        data = path.read_bytes()
        count = _HEAD.unpack_from(data)[-1]
        ids = struct.unpack_from(f"<{count - self.faults.tokens_lost}i", data, _HEAD.size)
        self.held[slot] = [*ids]
        return SlotFile(len(ids), len(data), 5.0)

    def _path(self, filename: str) -> Path:
        if self.folder is None:
            raise SlotRefused("This server does not support slots action")
        return self.folder / filename


class SlotKind(FakeKind):
    has_slots = True

    def carryover_fault(self, args: EngineArgs) -> str | None:
        return LlamaCppKind().carryover_fault(args)

    def slot_folder(self, args: EngineArgs) -> str | None:
        return args.value(SLOT_SAVE_PATH)

    def slot_folder_args(self, binary: str, folder: str) -> list[str]:
        return [] if binary == WRAPPER else [SLOT_SAVE_PATH.name, folder]


class SlotClient(FakeClient):
    """Made by SlotEngines.client_type."""

    world: SlotEngines

    @property
    def slots(self) -> FakeSlots | None:
        """None: nothing answers."""
        process = self.process
        ended = process is not None and process.exited.is_set()
        return None if ended else self.world.slots[self.port]

    async def read_slots(self, timeout_s: float) -> list[SlotState] | None:
        slots = self.slots
        return slots.states() if slots is not None and self.world.faults.are_shown else None

    async def save_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        with trio.move_on_after(timeout_s):
            if (slots := self.slots) is not None:
                return await slots.save(slot, filename)
        raise SlotUnanswered(NO_ANSWER)

    async def restore_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        with trio.move_on_after(timeout_s):
            if (slots := self.slots) is not None:
                return await slots.restore(slot, filename)
        raise SlotUnanswered(NO_ANSWER)

    async def erase_slot(self, slot: int, timeout_s: float) -> None:
        if (slots := self.slots) is not None:
            slots.held[slot] = []

    async def tokenize_request(
        self, endpoint: str, body: bytes, timeout_s: float
    ) -> list[int] | None:
        return ids_of(text_of(body)) if self.slots is not None else None

    @asynccontextmanager
    async def forward_request(
        self, method: str, target: str, headers: Sequence[Header], body: bytes | BodySource
    ) -> AsyncIterator[Exchange]:
        async with super().forward_request(method, target, headers, body) as exchange:
            is_prompt = target != "/lora-adapters"
            if (slots := self.slots) is not None and is_prompt and isinstance(body, bytes):
                slots.take(text_of(body))
            yield exchange


class SlotEngines(FakeEngines):
    """All processes, and their slots by port; a new one has `slot_count`."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = SlotFaults()
        self.slot_count = 1
        self.slots: dict[int, FakeSlots] = {}
        self.client_type = type("BoundSlotClient", (SlotClient,), {"world": self})
        self.kind = SlotKind(self)

    def open_slots(self, argv: Sequence[str], port: int, workdir: Path) -> FakeSlots:
        folder = EngineArgs(argv).value(SLOT_SAVE_PATH)
        where = None if folder is None else workdir / folder
        self.slots[port] = FakeSlots(self.faults, where, self.slot_count)
        return self.slots[port]

    @asynccontextmanager
    async def launch(
        self, argv: Sequence[str], *, env: Mapping[str, str], workdir: Path, log: logging.Logger
    ) -> AsyncIterator[FakeProcess]:
        self.open_slots(argv, int(argv[argv.index("--port") + 1]), workdir)
        async with super().launch(argv, env=env, workdir=workdir, log=log) as process:
            yield process


class SlotStack(Stack):
    """A gateway in memory with such engines."""

    engines: SlotEngines

    def held(self, model: str) -> list[list[int]]:
        """What the slots of the model's ready engine hold."""
        engine = self.manager.overview.engine_of(model)
        assert engine is not None
        return self.engines.slots[engine.client.port].held


@asynccontextmanager
async def slot_stack(given: GatewayConfig, slots: int = 1) -> AsyncIterator[SlotStack]:
    engines = SlotEngines()
    engines.slot_count = slots
    engines.facts = msgspec.structs.replace(engines.facts, slots=slots, build="b1")
    async with trio.open_nursery() as nursery:
        stack = SlotStack(nursery, engines, given)
        await nursery.start(stack.gateway.run)
        async with stack.http:
            yield stack
        stack.gateway.end_now("the test is over")
        nursery.cancel_scope.cancel(reason="the test is over")
