"""`/metrics`: what Prometheus reads of requests and engines."""

from __future__ import annotations

import httpcore
import pytest
import trio
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, stream
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.engine.errors import EngineLost
from trio_gateway.server.metrics import exposition
from trio_gateway.server.metrics.tallies import Spread

ANSWER = (
    b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":4},'
    b'"timings":{"prompt_n":2,"prompt_ms":20.0,"cache_n":8,"predicted_n":4,"predicted_ms":100.0}}'
)


class Metrics:
    """One scrape. `metrics["name", label, …]` is a number; the order of labels does not matter."""

    def __init__(self, text: str) -> None:
        self.names: set[str] = set()
        self.values: dict[frozenset[str], float] = {}
        for family in text_string_to_metric_families(text):
            self.names.add(family.name)
            for sample in family.samples:
                self.values[frozenset((sample.name, *sample.labels.values()))] = sample.value

    def __getitem__(self, key: tuple[str, ...]) -> float:
        name, *labels = key
        return self.values.get(frozenset((f"trio_gateway_{name}", *labels)), 0.0)


async def scrape(stack: Stack, **headers: str) -> Metrics:
    answer = await ask(stack, **headers)
    assert answer.status == 200, answer.content
    return Metrics(answer.content.decode())


async def ask(stack: Stack, **headers: str) -> httpcore.Response:
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    return await stack.http.request("GET", "http://gateway/metrics", headers=given)


async def test_a_request_is_counted_once_it_is_over(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[ANSWER]]
        await stack.post(CHAT, chat())
        seen = await scrape(stack)
    assert seen["requests_total", "m", "chat/completions", "ok"] == 1
    assert seen["decisions_total", "m", "started"] == 1
    assert seen["prompt_tokens_total", "m"] == 10
    assert seen["prompt_tokens_cached_total", "m"] == 8
    assert seen["generated_tokens_total", "m"] == 4
    assert seen["generation_tokens_per_second_sum", "m"] == 40
    assert seen["engine_starts_total", "m", "4096"] == 1
    assert seen["engine_load_seconds_bucket", "m", "4096", "2.5"] == 1
    assert seen["engine_load_seconds_bucket", "m", "4096", "0.5"] == 0
    assert seen["engines", "m", "4096", "ready"] == 1
    assert seen["prompts_counted_total", "m", "bound"] == 1


async def test_refusals_and_failures_are_told_apart(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat("other"))
        stack.engines.refusals = [EngineLost("gone"), EngineLost("gone")]
        await stack.post(CHAT, chat())
        seen = await scrape(stack)
    assert seen["requests_total", "", "chat/completions", "refused"] == 1
    assert seen["request_errors_total", "", "model_not_found"] == 1
    assert seen["requests_total", "m", "chat/completions", "failed"] == 1
    assert seen["request_errors_total", "m", "engine_failed"] == 1
    assert seen["request_retries_total", "m"] == 1


async def test_names_that_clients_make_up_make_no_labels(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        for number in range(20):
            await stack.post(CHAT, chat(f"invented-{number}"))
        answer = await ask(stack)
    assert b"invented" not in answer.content


async def test_a_swap_says_who_went_and_who_came(autojump_clock: Clock) -> None:
    async with running_stack(config(model("a"), model("b"))) as stack:
        await stack.post(CHAT, chat("a"))
        await stack.post(CHAT, chat("b"))
        seen = await scrape(stack)
    assert seen["swaps_total", "a", "b", "idle"] == 1
    assert seen["engine_stops_total", "a", "4096", "swap"] == 1
    assert seen["engine_failures_total", "a", "4096", "running"] == 0


async def test_an_engine_that_ends_by_itself_is_a_failure(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        stack.engines.alive[0].exit("was killed by signal 9")
        await trio.testing.wait_all_tasks_blocked()
        seen = await scrape(stack)
    assert seen["engine_failures_total", "m", "4096", "running"] == 1
    assert seen["engine_stops_total", "m", "4096", "swap"] == 0


async def test_what_waits_and_what_runs_is_seen(autojump_clock: Clock) -> None:
    async with running_stack(config(model("a"), model("b"))) as stack, trio.open_nursery() as some:
        stack.engines.scripts = [[EVENT, 30.0, DONE], [EVENT, DONE]]
        some.start_soon(stream, stack, chat("a", stream=True))
        await trio.sleep(5.0)
        some.start_soon(stream, stack, chat("b", stream=True))
        await trio.sleep(5.0)
        seen = await scrape(stack)
    assert seen["queue_requests", "b", "interactive"] == 1
    assert seen["queue_oldest_seconds", "b"] == pytest.approx(5.0, abs=0.1)
    assert seen["queue_timeout_seconds",] == 600
    assert seen["live_requests", "a", "answering"] == 1
    assert seen["engine_leases", "a", "4096"] == 1
    assert seen["time_to_first_token_seconds_count", "a"] == 0  # it is not over


async def test_a_pool_s_memory(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", variant(memory_bytes=3 << 30)))) as stack:
        await stack.post(CHAT, chat())
        seen = await scrape(stack)
    assert seen["pool_memory_bytes", "primary", "used"] == 3 << 30


async def test_openmetrics_where_it_is_asked_for(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        answer = await ask(stack, Accept="application/openmetrics-text; version=1.0.0")
    kind = dict(answer.headers)[b"content-type"]
    assert kind.startswith(b"application/openmetrics-text")
    parse = openmetrics.text_string_to_metric_families
    families = parse(answer.content.decode())  # type: ignore[no-untyped-call]
    assert "trio_gateway_requests" in {family.name for family in families}


@pytest.mark.parametrize("limit", [0, 10**9], ids=["in a thread", "at once"])
async def test_a_long_page_is_the_same(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(exposition, "SAMPLES_MAX", limit)
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        seen = await scrape(stack)
        answer = await ask(stack, Accept="application/openmetrics-text; version=1.0.0")
    assert seen["requests_total", "m", "chat/completions", "ok"] == 1
    assert answer.content.endswith(b"# EOF\n")


async def test_every_name_follows_prometheus_rules(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        seen = await scrape(stack)
    ours = {name for name in seen.names if name.startswith("trio_gateway_")}
    assert len(ours) > 30
    assert {
        name for name in ours if not name.islower() or name.endswith(("_ms", "_count"))
    } == set()


@pytest.mark.parametrize(
    ("key", "status"), [("admin", 200), ("scraper", 200), ("user", 403), ("", 401)]
)
async def test_who_may_scrape(autojump_clock: Clock, key: str, status: int) -> None:
    keys = (
        ApiKey(name="a", secret="admin", admin=True),
        ApiKey(name="s", secret="scraper", metrics=True),
        ApiKey(name="u", secret="user"),
    )
    given = config(model("m"), access=AccessConfig(allowed_hosts=("gateway",), api_keys=keys))
    async with running_stack(given) as stack:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        assert (await ask(stack, **headers)).status == status


def test_a_spread_s_buckets_include_their_limits() -> None:
    spread = Spread((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        spread.add([value])
    assert spread.cumulative() == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]
    assert spread.total == 14.0
