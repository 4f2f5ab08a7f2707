"""A cluster that takes connections and does not answer: at a start, at a stop, and afterwards."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.support.fake_serve import FakeServe, open_fake_serve
from trio_gateway.config.cluster_schema import ClusterOptions
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, VariantConfig
from trio_gateway.engine.clients.ray import LlamaCppOnCluster, RayKind
from trio_gateway.engine.cluster.clusters import AGAIN_S, Clusters
from trio_gateway.engine.cluster.process import TAKE_OUT_S, ClusterProcess
from trio_gateway.engine.outcome import StartFailed
from trio_gateway.engine.process.process import Ending
from trio_gateway.engine.scheduling.events import VariantKey

ALL = ("GET", "PUT")
SETTLED_S = 0.05  # real sockets: after that long without news nothing more is to come
log = logging.getLogger(__name__)


def variant_at(url: str) -> VariantConfig:
    return VariantConfig(
        name="4096", binary="llama-server", args=("-m", "x"), context=4096, connect=None, env={},
        workdir=Path("/"), parallel=2, memory_bytes=0, timeouts=EngineTimeouts(),
        options=EngineOptions(cluster=ClusterOptions(address=url)),
    )  # fmt: skip


@asynccontextmanager
async def started(serve: FakeServe, clusters: Clusters) -> AsyncIterator[ClusterProcess]:
    application = clusters.application(VariantKey("m", "4096"), variant_at(serve.url))
    async with application.open([], env={}, workdir=Path("/"), log=log) as process:
        yield process


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(120):
        while not condition():  # noqa: ASYNC110 - nobody is told
            await trio.sleep(5)


async def test_a_start_says_so(autojump_clock: MockClock) -> None:
    async with open_fake_serve() as serve:
        autojump_clock.autojump_threshold = SETTLED_S
        serve.silent_to = ALL
        clusters, variant = Clusters(Path("/gateway.lua")), variant_at(serve.url)
        application = clusters.application(VariantKey("m", "4096"), variant)
        with pytest.raises(StartFailed, match="no answer within 10 s") as caught:
            await application.open_client(RayKind(), variant.options)
        assert caught.value.unavailable
        await clusters.close()


async def test_a_stop_does_not_wait_for_a_write_that_is_not_answered(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_fake_serve() as serve:
        autojump_clock.autojump_threshold = SETTLED_S
        clusters = Clusters(Path("/gateway.lua"))
        serve.silent_to = ("PUT",)
        async with started(serve, clusters) as process:
            await serve.ignored.wait()
            serve.silent_to = ALL
            begun = trio.current_time()
            assert (await process.stop(5)).ending is Ending.LEFT
            assert trio.current_time() - begun <= TAKE_OUT_S + 0.1
        await clusters.close()
        assert trio.current_time() - begun <= TAKE_OUT_S + 2.1
    assert "stays on the cluster" in caplog.text
    assert "`trio-gateway cluster clean` takes it out" in caplog.text


async def test_a_cancelled_stop_is_made_up_for() -> None:
    async with open_fake_serve() as serve:
        clusters = Clusters(Path("/gateway.lua"))
        async with started(serve, clusters) as process:
            await process._contact.deployed.wait()
            serve.silent_to = ("PUT",)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.stop, 5)
                await serve.ignored.wait()
                serve.silent_to = ()
                nursery.cancel_scope.cancel(reason="a second signal")
        assert serve.applications == {}
        await clusters.close()


async def test_what_was_left_is_taken_out_once_it_answers(autojump_clock: MockClock) -> None:
    async with open_fake_serve() as serve:
        autojump_clock.autojump_threshold = SETTLED_S
        clusters = Clusters(Path("/gateway.lua"))
        async with started(serve, clusters) as process:
            await process._contact.deployed.wait()
            serve.silent_to = ALL
            assert (await process.stop(5)).ending is Ending.LEFT
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clusters.tidy)
            serve.ignored = trio.Event()
            await serve.ignored.wait()  # asked again, in vain
            assert len(serve.applications) == 1
            serve.silent_to = ()
            await until(lambda: not serve.applications)
            nursery.cancel_scope.cancel(reason="the test is over")
        await clusters.close()


async def test_what_was_given_up_is_taken_out_at_the_end() -> None:
    async with open_fake_serve() as serve:
        clusters = Clusters(Path("/gateway.lua"))
        async with started(serve, clusters) as process:
            await process._contact.deployed.wait()
            await process.kill()
        assert len(serve.applications) == 1
        await clusters.close()
        assert serve.applications == {}


async def test_one_that_an_engine_has_again_is_not_tidied(autojump_clock: MockClock) -> None:
    async with open_fake_serve() as serve:
        autojump_clock.autojump_threshold = SETTLED_S
        clusters = Clusters(Path("/gateway.lua"))
        async with started(serve, clusters) as process:
            await process._contact.deployed.wait()
            await process.kill()
        async with started(serve, clusters) as process, trio.open_nursery() as nursery:
            nursery.start_soon(clusters.tidy)
            await process._contact.deployed.wait()
            await trio.sleep(AGAIN_S + 10)
            assert not process.exited.is_set()
            assert len(serve.written) == 1
            nursery.cancel_scope.cancel(reason="the test is over")
        await clusters.close()


@pytest.mark.parametrize("answers", [True, False])
async def test_silence_of_the_proxy_counts_if_the_dashboard_is_silent_as_well(
    answers: bool,
) -> None:
    async with open_fake_serve() as serve:
        serve.silent_to = ALL
        client = LlamaCppOnCluster(f"{serve.url}/app", variant_at(serve.url).options)
        client.contact.deployed.set()
        client.contact.answers = answers
        health = await client.check_health(0.05)
        assert (health.ok, health.silent) == (False, not answers)
        await client.aclose()


async def test_a_watch_notices_both(autojump_clock: MockClock) -> None:
    async with open_fake_serve() as serve:
        autojump_clock.autojump_threshold = SETTLED_S
        clusters = Clusters(Path("/gateway.lua"))
        async with started(serve, clusters) as process:
            contact = process._contact
            await contact.deployed.wait()
            serve.silent_to = ALL
            await until(lambda: not contact.answers)
            serve.silent_to = ()
            await until(lambda: contact.answers)
            assert not process.exited.is_set()
        await clusters.close()
