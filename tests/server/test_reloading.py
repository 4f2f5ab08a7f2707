"""Watching the file: what a gateway that has just begun may miss."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from tests.support.harness import configuration, fake_model
from trio_gateway.config.locate import load_config
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.server import reloading
from trio_gateway.server.reloading import Reloader
from trio_gateway.tasks import beside

pytestmark = pytest.mark.processes


async def test_a_change_while_the_gateway_starts_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "WATCH_S", 0.01)
    monkeypatch.setattr(reloading, "SETTLED_S", 0.01)
    file, taken = tmp_path / "gateway.lua", trio.Event()
    file.write_text(configuration(fake_model("a")))
    began_ns = time.time_ns()
    config, _ = load_config(file)
    file.write_text(configuration(fake_model("b")))
    models: list[str] = []

    def take_over(found: GatewayConfig) -> None:
        models.extend(model.name for model in found.models)
        taken.set()

    reloader = Reloader(config, take_over, trio.Event())
    async with beside(lambda: reloader.watch(began_ns)):
        with trio.fail_after(30):
            await taken.wait()
    assert models == ["b"]
