"""An application's life, on a Ray Serve that is faked."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.fake_serve import FakeServe, open_fake_serve, running
from trio_gateway.config.cluster_schema import ClusterOptions
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, Secret, VariantConfig
from trio_gateway.engine.clients.ray import RayKind
from trio_gateway.engine.cluster.application import application_of, names_begin
from trio_gateway.engine.cluster.clusters import Clusters
from trio_gateway.engine.cluster.process import ClusterProcess
from trio_gateway.engine.cluster.serve_api import ClusterRefuses, ClusterUnreachable, ServeApi
from trio_gateway.engine.outcome import StartFailed
from trio_gateway.engine.process.process import Ending
from trio_gateway.engine.scheduling.events import VariantKey

KEY = VariantKey("m", "4096")
OTHERS = {"name": "others", "import_path": "a:b", "runtime_env": {"env_vars": {"A": "b"}}}
log = logging.getLogger(__name__)


def variant_at(url: str, **keys: Any) -> VariantConfig:
    cluster = ClusterOptions(address=url, headers={"X-Key": Secret("s3")}, **keys)
    return VariantConfig(
        name="4096", binary="llama-server", args=("-m", "x"), context=4096, connect=None, env={},
        workdir=Path("/"), parallel=2, memory_bytes=0, timeouts=EngineTimeouts(),
        options=EngineOptions(cluster=cluster),
    )  # fmt: skip


@asynccontextmanager
async def started(
    serve: FakeServe, clusters: Clusters | None = None
) -> AsyncIterator[ClusterProcess]:
    of_run = clusters or Clusters(Path("/gateway.lua"))
    application = of_run.application(KEY, variant_at(serve.url))
    try:
        async with application.open([], env={}, workdir=Path("/"), log=log) as process:
            yield process
    finally:
        if clusters is None:
            await of_run.close()


def ours(serve: FakeServe) -> str:
    (name,) = (name for name in serve.applications if name != "others")
    return name


async def until_deployed(process: ClusterProcess) -> None:
    with trio.fail_after(5):
        await process._contact.deployed.wait()


async def test_it_is_put_beside_others_and_taken_out_again() -> None:
    async with open_fake_serve() as serve:
        serve.applications["others"] = running(OTHERS)
        async with started(serve) as process:
            await until_deployed(process)
            assert serve.headers["x-key"] == "s3"
            assert serve.written[0]["applications"][0] == OTHERS
            assert serve.written[0]["target_capacity"] == 80.0
            assert (await process.stop(5)).ending is Ending.STOPPED
            assert [*serve.applications] == ["others"]
        assert len(serve.written) == 2  # leaving the block has nothing left to do


async def test_a_cancelled_engine_leaves_nothing() -> None:
    async with open_fake_serve() as serve:
        with trio.CancelScope() as scope:
            async with started(serve) as process:
                await until_deployed(process)
                scope.cancel(reason="the test")
                await trio.sleep_forever()
        assert serve.applications == {}


async def test_one_that_is_there_is_taken_as_it_is() -> None:
    async with open_fake_serve() as serve:
        clusters = Clusters(Path("/gateway.lua"))
        async with started(serve, clusters) as process:
            await until_deployed(process)
            await process.kill()  # given up: it stays
        async with started(serve, clusters) as process:
            await until_deployed(process)
            assert len(serve.written) == 1
        await clusters.close()


async def test_places_follow_the_replicas_that_run() -> None:
    async with open_fake_serve() as serve, started(serve) as process:
        await until_deployed(process)
        name = ours(serve)
        config = serve.applications[name]["deployed_app_config"]
        serve.applications[name] = running(config, replicas=3)
        with trio.fail_after(10):
            assert await process.copies_changed() == 3


async def test_a_lost_race_is_tried_again() -> None:
    async with open_fake_serve() as serve:

        def once_undone(body: dict[str, Any]) -> None:
            serve.on_put = serve.apply
            serve.apply({"applications": [OTHERS]})

        serve.on_put = once_undone
        async with started(serve) as process:
            await until_deployed(process)
            assert {*serve.applications} == {"others", ours(serve)}


async def test_a_race_that_is_never_won_says_so(autojump_clock: MockClock) -> None:
    async with open_fake_serve() as serve:
        autojump_clock.autojump_threshold = 0.05
        serve.on_put = lambda body: None
        with pytest.raises(StartFailed, match="others write its state as well"):
            async with started(serve):
                await trio.sleep_forever()


async def test_one_that_somebody_takes_out_has_ended() -> None:
    async with open_fake_serve() as serve, started(serve) as process:
        await until_deployed(process)
        serve.applications.clear()
        with trio.fail_after(10):
            await process.exited.wait()
        assert process.status == "was taken out of Ray Serve by somebody else"


async def test_a_failed_one_has_ended_with_the_last_words_of_its_replica() -> None:
    async with open_fake_serve() as serve:

        def fail(body: dict[str, Any]) -> None:
            serve.apply(body)
            for shown in serve.applications.values():
                shown |= {"status": "DEPLOY_FAILED", "message": "Traceback\nno such file"}

        serve.on_put = fail
        async with started(serve) as process:
            with trio.fail_after(5):
                await process.exited.wait()
            assert process.last_lines()[-1] == "no such file"
        assert serve.applications == {}


async def test_without_room_it_says_which_resource(autojump_clock: MockClock) -> None:
    async with open_fake_serve() as serve:
        autojump_clock.autojump_threshold = 0.05

        def wait(body: dict[str, Any]) -> None:
            serve.apply(body)
            starting = {"replicas": [{"state": "STARTING"}], "required_resources": {"GPU": 1}}
            for shown in serve.applications.values():
                shown |= {"status": "DEPLOYING", "deployments": {"engine": starting}}

        serve.on_put = wait
        with pytest.raises(StartFailed, match="it needs 1 GPU, and no node has any") as caught:
            async with started(serve):
                await trio.sleep_forever()
        assert caught.value.unavailable
        assert serve.applications == {}


async def test_a_cluster_that_is_not_there_is_unavailable() -> None:
    clusters = Clusters(Path("/gateway.lua"))
    found = variant_at("http://127.0.0.1:9")
    with pytest.raises(StartFailed, match=r"127\.0\.0\.1:9: nothing answers") as caught:
        await clusters.application(KEY, found).open_client(RayKind(), found.options)
    assert caught.value.unavailable


@pytest.mark.parametrize(
    ("status", "error"), [(401, ClusterRefuses), (404, ClusterRefuses), (503, ClusterUnreachable)]
)
async def test_a_cluster_that_refuses(status: int, error: type[Exception]) -> None:
    async with open_fake_serve() as serve:
        serve.refuse = status
        api = ServeApi(variant_at(serve.url).options)
        with pytest.raises(error, match=f"HTTP {status}"):
            await api.read()
        api.close()


async def test_what_an_earlier_run_has_left_is_found_or_taken_out() -> None:
    async with open_fake_serve() as serve:
        clusters = Clusters(Path("/gateway.lua"))
        begin, now = names_begin(clusters.owner), variant_at(serve.url)
        wanted = application_of(clusters.owner, KEY, now).name
        for name in (wanted, "others", f"{begin}old", "trio-gateway-ffffffff-anothers"):
            serve.applications[name] = running({"name": name})
        adopted: list[VariantKey] = []

        async def adopt(key: VariantKey) -> None:
            adopted.append(key)

        await clusters.look_through(lambda: {KEY: now}, adopt)
        assert adopted == [KEY]
        assert {*serve.applications} == {wanted, "others", "trio-gateway-ffffffff-anothers"}
        await clusters.close()
