"""Asking other gateways what they have, over real sockets."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from tests.support.openai_site import Site, running
from tests.support.schema_values import config, model
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, GatewayConfig, PeerConfig
from trio_gateway.engine.scheduling.model_load import LoadState, ModelLoad
from trio_gateway.server.fleet import peers as module
from trio_gateway.server.fleet.listing import TARGET
from trio_gateway.server.fleet.peers import Peers

INTERVAL_S = 0.02


def lists(*names: str, **entry: Any) -> dict[str, tuple[int, Any]]:
    data = [{"id": name, "contexts": [4096], **entry} for name in names]
    return {TARGET: (200, {"data": data})}


def entry(*urls: str, name: str = "box") -> PeerConfig:
    options = EngineOptions(urls=urls, gateway=True, health_interval_s=INTERVAL_S)
    return PeerConfig(
        name=name, options=options, timeouts=EngineTimeouts(), pool="remote", parallel=64
    )


def given(*entries: PeerConfig) -> GatewayConfig:
    return msgspec.structs.replace(config(model("here")), peers=entries)


class Taken:
    """What was taken over, look by look."""

    def __init__(self, given: GatewayConfig) -> None:
        self.states: dict[str, ModelLoad] = {}
        self.peers = Peers(given, self._tell)
        self.peers.take_over = self._take
        self.given, self.names, self.looks = given, ["here"], trio.Event()

    async def _take(self) -> None:
        self.names = [found.name for found in self.peers.compose(self.given).models]

    def _tell(self, states: Any) -> None:
        self.states = dict(states)
        self.looks.set()
        self.looks = trio.Event()

    async def look(self, count: int = 2) -> None:
        """Look again: the first of two may have begun before."""
        with trio.fail_after(20):
            for _ in range(count):
                await self.looks.wait()


@asynccontextmanager
async def following(*entries: PeerConfig) -> AsyncIterator[Taken]:
    taken = Taken(given(*entries))
    async with trio.open_nursery() as nursery:
        await nursery.start(taken.peers.run)
        yield taken
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_their_models_are_there_once_it_has_started() -> None:
    answers = lists("a", status={"value": "loaded"})
    async with running(Site(answers=answers)) as site, following(entry(site.url)) as taken:
        assert taken.names == ["here", "a"]
        assert taken.states == {"a": ModelLoad(LoadState.LOADED)}
        site.answers |= lists("a", "b")
        await taken.look()
        assert taken.names == ["here", "a", "b"]
        (row,) = taken.peers.rows()
        assert (row.name, row.url, row.fault, row.models) == ("box", site.url, None, ("a", "b"))
        assert row.asked_s is not None
        assert taken.states["a"].state is LoadState.UNLOADED
    assert b"\r\nX-Gateway-Via: " in site.heads[0] or b"\r\nx-gateway-via: " in site.heads[0]


async def test_one_that_is_away_has_its_models_listed_when_it_answers_and_keeps_them(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_LOOK_S", 0.0)
    caplog.set_level(logging.INFO)
    answers: dict[str, tuple[int, Any]] = {TARGET: (500, {})}
    async with running(Site(answers=answers)) as site, following(entry(site.url)) as taken:
        await taken.look()
        assert taken.names == ["here"]
        site.answers |= lists("a")
        await taken.look()
        assert taken.names == ["here", "a"]
        site.answers[TARGET] = (401, {})
        await taken.look()
        assert (taken.names, taken.states) == (["here", "a"], {})
        (row,) = taken.peers.rows()
        assert row.fault == "it refuses the key (HTTP 401); check `api_key`"
        assert row.models == ("a",)
    said = [record.message for record in caplog.records if record.name == module.__name__]
    assert len(said) == 3, said  # each is said once
    assert "HTTP 500; none is listed yet" in said[0]
    assert "says now" in said[1]
    assert "check `api_key`; those that it had stay listed" in said[2]


async def test_one_that_has_no_time_for_it_has_said_nothing_new() -> None:
    async with running(Site(answers=lists("a"))) as site, following(entry(site.url)) as taken:
        site.answers[TARGET] = (429, {})
        await taken.look()
        assert taken.names == ["here", "a"]
        assert "a" in taken.states


async def test_a_state_is_of_the_model_that_is_offered() -> None:
    loaded = {"status": {"value": "loaded"}}
    answers = lists("a", "here", **loaded)
    async with running(Site(answers=lists("a"))) as first, running(Site(answers=answers)) as second:
        both = entry(first.url, name="first"), entry(second.url, name="second")
        async with following(*both) as taken:
            await taken.look()
            assert taken.names == ["here", "a"]
            assert taken.states == {"a": ModelLoad(LoadState.UNLOADED)}


async def test_other_entries_are_asked_from_a_reload_on() -> None:
    async with (
        running(Site(answers=lists("a"))) as a,
        running(Site(answers=lists("b"))) as b,
        following(entry(a.url)) as taken,
    ):
        taken.given = given(entry(b.url, name="other"))
        taken.peers.go_by(taken.given)
        await taken.look()
        assert taken.names == ["here", "b"]


async def test_a_certificate_that_cannot_be_read_stops_nothing(tmp_path: Any) -> None:
    entry_ = entry("https://127.0.0.1:1")
    options = msgspec.structs.replace(entry_.options, ca_file=tmp_path / "not-there.pem")
    async with following(msgspec.structs.replace(entry_, options=options)) as taken:
        assert taken.names == ["here"]
