"""Watching the file: what a gateway that has just begun may miss."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec
import pytest
import trio

from tests.support.harness import configuration, fake_model
from tests.support.schema_values import model
from trio_gateway.config.locate import load_config
from trio_gateway.config.schema import GatewayConfig, ModelConfig
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


def peers_model(name: str) -> ModelConfig:
    return model(name, peer="box2")


async def test_what_other_gateways_have_is_taken_over_and_outlives_a_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "gateway.lua"
    file.write_text(configuration(fake_model("a")))
    config, _ = load_config(file)
    theirs = list[ModelConfig]()

    def compose(read: GatewayConfig) -> GatewayConfig:
        return msgspec.structs.replace(read, models=(*read.models, *theirs))

    taken = list[list[str]]()

    def take_over(found: GatewayConfig) -> None:
        taken.append([one.name for one in found.models])

    closing = trio.Event()
    reloader = Reloader(config, take_over, closing, compose)
    await reloader.recompose(take_over)
    assert taken == []  # they have nothing
    theirs.append(peers_model("big"))
    await reloader.recompose(take_over)
    await reloader.recompose(take_over)
    assert taken == [["a", "big"]]
    assert "+ model big" in caplog.messages
    file.write_text(configuration(fake_model("b")))
    found = await reloader.reload("the test asks")
    assert taken[1:] == [["b", "big"]]
    assert found.changes == ("- model a", "+ model b")
    theirs.clear()
    await reloader.recompose(take_over)
    assert taken[2:] == [["b"]]
    theirs.append(peers_model("late"))
    closing.set()
    await reloader.recompose(take_over)
    assert len(taken) == 3
