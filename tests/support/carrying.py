"""A gateway in memory whose conversations are carried over, and what its answers say about that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpcore
import trio

from tests.support.asking import CHAT, chat, header
from tests.support.fake_slots import SlotStack, words
from tests.support.schema_values import config, model, variant
from trio_gateway.config.schema import (
    EngineTimeouts,
    GatewayConfig,
    KvCarryoverConfig,
    ModelConfig,
)

STOP_S = 10.0
GRACE_S = 5.0
LAST_S = 1.0  # what a shutdown may take on top of the grace and of the engines' stops
LOAD_S, END_S = 1.0, 0.5  # of a fake engine
A, B, NEXT = words("a"), words("b"), words("next", 20)


class Files:
    """Where a test keeps its models' files and its store."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "kv"
        self.gguf = folder / "m.gguf"
        self.gguf.write_bytes(b"GGUF")

    def model(
        self,
        name: str,
        *contexts: int,
        idle_s: float = 1e6,
        args: Sequence[str] = (),
        **fields: Any,
    ) -> ModelConfig:
        timeouts = EngineTimeouts(stop_s=STOP_S, idle_s=idle_s)
        args = ("-m", str(self.gguf), *args)
        variants = [variant(c, args=args, timeouts=timeouts) for c in contexts or (8192,)]
        return model(name, *variants, **fields)

    def config(self, *models: ModelConfig, persist: bool = False) -> GatewayConfig:
        carryover = KvCarryoverConfig(directory=self.store, persist=persist)
        return config(*models, kv_carryover=carryover, shutdown_grace_s=GRACE_S)

    def two_models(self, **fields: Any) -> GatewayConfig:
        return self.config(self.model("a"), self.model("b"), **fields)

    @property
    def kept(self) -> list[str]:
        """Without the lock's file: the suffixes."""
        return sorted(
            p.suffix for p in self.store.rglob("*") if p.is_file() and p.suffix != ".lock"
        )


async def ask(stack: SlotStack, name: str, text: str) -> httpcore.Response:
    return await stack.post(CHAT, chat(name, messages=[{"role": "user", "content": text}]))


def kv_of(response: httpcore.Response) -> str | None:
    assert response.status == 200, response.content
    names = [name.decode().lower() for name, _ in response.headers]
    return header(response, "X-Gateway-Kv") if "x-gateway-kv" in names else None


async def carryover(stack: SlotStack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await stack.get("/gateway/engines")).content)
    return found["kv_carryover"]  # type: ignore[no-any-return]


def pauses(stack: SlotStack) -> dict[Any, Any]:
    """What is left alone after a failure. No question tells while an engine runs."""
    return stack.manager._scheduler.state.back_off._pauses


async def shut_down_within(stack: SlotStack, seconds: float) -> float:
    """How long it takes from now on until no engine is left."""
    begun = trio.current_time()
    stack.gateway.begin_shutdown()
    with trio.fail_after(seconds):
        await stack.manager.stopped.wait()
    return trio.current_time() - begun
