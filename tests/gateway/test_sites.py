"""What a gateway tells of the URLs of its remote models, and another one of what it has to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, EVENT, Clock, chat, error_of
from tests.support.fakes import FakeEngines
from tests.support.openai_site import Site, running
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import EngineOptions, GatewayConfig
from trio_gateway.engine.manager import EngineManager

QUEUE = "/gateway/queue"
KEYS = (
    ApiKey(name="front", secret="of-the-front", forwards=True, max_parallel=1),
    ApiKey(name="tv", secret="of-the-tv"),
    ApiKey(name="laptop", secret="of-the-laptop", admin=True),
)


class RealClients(FakeEngines):
    def manager(self, given: GatewayConfig) -> EngineManager:
        return EngineManager(given, launch=self.launch)


async def test_the_urls_of_a_remote_model_are_shown() -> None:
    async with running(Site("a")) as site:
        dead = "http://127.0.0.1:1"
        there = EngineOptions(urls=(dead, site.url), served_name="theirs")
        elsewhere = variant(4096, binary="", options=there, parallel=64, memory_bytes=0)
        remote = model("m", elsewhere, engine=ENGINE_TYPES["remote"], pool="remote")
        async with trio.open_nursery() as nursery:
            stack = Stack(nursery, RealClients(), config(remote, pools={"remote": 1000}))
            await nursery.start(stack.gateway.run)
            async with stack.http:
                assert (await stack.post(CHAT, chat())).status == 200
                shown = json.loads((await stack.get("/gateway/engines")).content)
                metrics = (await stack.get("/metrics")).content.decode()
                (record,) = stack.gateway.book.recent
            stack.gateway.end_now("the test is over")
            nursery.cancel_scope.cancel(reason="the test is over")
    assert record.site == f"{site.url.removeprefix('http://')}: the first that works"
    for url, works in ((dead, 0.0), (site.url, 1.0)):
        labels = f'{{model="m",url="{url}",variant="4096"}}'
        assert f"trio_gateway_remote_url_works{labels} {works}\n" in metrics
        assert f"trio_gateway_remote_url_requests{labels} 0.0\n" in metrics
    (row,) = shown["engines"]
    first, second = row["sites"]
    assert (first["url"], first["state"]) == (dead, "open")
    assert first["reason"] == "nothing answers there"
    assert first["retry_at_s"] > first["since_s"] > 1e9
    assert (second["url"], second["state"]) == (site.url, "works")


async def test_an_engine_of_ours_has_no_urls(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        (row,) = json.loads((await stack.get("/gateway/engines")).content)["engines"]
        assert row["sites"] == []


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("of-the-laptop", {"tickets", "waiting", "running", "held"}),
        ("of-the-front", {"waiting", "running"}),
    ],
)
async def test_a_gateway_in_front_is_told_how_much_there_is_to_do(
    autojump_clock: Clock, key: str, told: set[str]
) -> None:
    access = AccessConfig(api_keys=KEYS, allowed_hosts=("gateway",))
    async with running_stack(config(model("m"), access=access)) as stack:
        stack.engines.scripts = [[EVENT, 1000.0]] * 2
        async with trio.open_nursery() as nursery:
            # The fake engine has two places. To ask takes no place of the front's one.
            for secret in ("of-the-front", "of-the-tv", "of-the-tv"):
                sent = {"X-Api-Key": secret}
                nursery.start_soon(stack.post, CHAT, chat(stream=True), sent)
                await trio.sleep(1)
            answer = await stack.http.request(
                "GET", f"http://gateway{QUEUE}", headers=[("X-Api-Key", key)]
            )
            found: dict[str, Any] = json.loads(answer.content)
            assert set(found) == told
            assert (found["waiting"], found["running"]) == (1, 2)
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_others_are_not_told(autojump_clock: Clock) -> None:
    access = AccessConfig(api_keys=KEYS, allowed_hosts=("gateway",))
    async with running_stack(config(model("m"), access=access)) as stack:
        for secret, path in (("of-the-tv", QUEUE), ("of-the-front", "/gateway/engines")):
            answer = await stack.http.request(
                "GET", f"http://gateway{path}", headers=[("X-Api-Key", secret)]
            )
            assert (answer.status, error_of(answer)["code"]) == (403, "admin_only")
