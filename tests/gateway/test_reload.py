"""Another configuration while requests run: nothing breaks, and what is other takes effect."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, stream
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.history_schema import HistoryConfig
from trio_gateway.config.schema import (
    EngineTimeouts,
    GatewayConfig,
    RewriteConfig,
    TracesConfig,
)

A, B = model("a"), model("b")


async def stream_of(stack: Stack, name: str, got: list[bytes], begun: trio.Event) -> None:
    body = chat(name, stream=True)
    async with stack.http.stream("POST", f"http://gateway{CHAT}", content=body) as response:
        assert response.status == 200
        async for piece in response.aiter_stream():
            got.append(piece)
            begun.set()


async def test_a_stream_goes_on_whatever_changes_around_it(autojump_clock: Clock) -> None:
    """Its own model's names, rewrites and timeouts, another model, a pool, keys: its engine lives
    on, and so does it."""
    before = config(A, B)
    changed = msgspec.structs.replace(A, aliases=("other",), rewrite=RewriteConfig(remove=("x",)))
    quick = EngineTimeouts(idle_s=5.0)
    retimed = model("a", variant(timeouts=quick))
    reloads = (
        config(changed, B), config(A), config(retimed, B, model("c")),
        config(A, B, queue_limit=1), before,
    )  # fmt: skip
    async with running_stack(before) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, *(part for _ in range(10) for part in (1.0, EVENT)), DONE]]
        got, begun = list[bytes](), trio.Event()
        nursery.start_soon(stream_of, stack, "a", got, begun)
        await begun.wait()
        for given in reloads:
            stack.gateway.take_over(given)
            await trio.sleep(1)
        await trio.sleep(10)
        assert b"".join(got) == EVENT * 11 + DONE
        assert len(stack.engines.processes) == 1
        assert stack.engines.alive


async def test_an_engine_that_is_started_otherwise_finishes_and_the_next_request_gets_a_new_one(
    autojump_clock: Clock,
) -> None:
    other = model("a", variant(env={"LLAMA_ARG_THREADS": "3"}))
    async with running_stack(config(A)) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 30.0, EVENT, DONE]]
        got, begun = list[bytes](), trio.Event()
        nursery.start_soon(stream_of, stack, "a", got, begun)
        await begun.wait()
        stack.gateway.take_over(config(other))
        assert (await stack.post(CHAT, chat("a"))).status == 200
        assert b"".join(got) == EVENT + EVENT + DONE
        assert [e.get("LLAMA_ARG_THREADS") for e in stack.engines.environments] == [None, "3"]
        assert len(stack.engines.alive) == 1


async def test_who_waits_for_a_model_that_goes_is_told_so_and_so_is_who_asks_later(
    autojump_clock: Clock,
) -> None:
    answers: list[tuple[int, Any]] = []

    async def ask(name: str) -> None:
        response = await stack.post(CHAT, chat(name))
        answers.append((response.status, json.loads(response.content)))

    async with running_stack(config(A, B)) as stack:
        stack.engines.load_s = 20.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "b")
            await trio.sleep(5)
            stack.gateway.take_over(config(A))
        ((status, body),) = answers
        assert status == 404
        assert body["error"]["code"] == "model_not_found"
        assert "reloaded" in body["error"]["message"]
        response = await stack.post(CHAT, chat("b"))
        assert response.status == 404
        assert error_of(response)["code"] == "model_not_found"
        stack.gateway.take_over(config(A, B))
        assert (await stack.post(CHAT, chat("b"))).status == 200


@pytest.mark.parametrize(
    ("keys", "statuses"), [((), (200, 200)), (("one",), (200, 401)), (("two",), (401, 200))]
)
async def test_keys_apply_at_once(
    autojump_clock: Clock, keys: Sequence[str], statuses: tuple[int, int]
) -> None:
    async def ask(key: str) -> int:
        response = await stack.post(CHAT, chat("a"), {"Authorization": f"Bearer {key * 8}"})
        return response.status

    async with running_stack(config(A)) as stack:
        given = tuple(ApiKey(name=name, secret=name * 8) for name in keys)
        access = AccessConfig(api_keys=given, allowed_hosts=("gateway",))
        stack.gateway.take_over(config(A, access=access))
        assert (await ask("one"), await ask("two")) == statuses


async def test_lists_pages_and_the_feed_have_the_new_models(autojump_clock: Clock) -> None:
    async with running_stack(config(A)) as stack:
        stack.gateway.take_over(config(B, model("c")))
        names = {m["id"] for m in json.loads((await stack.get("/v1/models")).content)["data"]}
        rows = json.loads((await stack.get("/gateway/models")).content)["models"]
        shown = json.loads((await stack.get("/gateway/configuration")).content)
        assert names == {row["name"] for row in rows} == {"b", "c"}
        assert [m["name"] for m in shown["configuration"]["models"]] == ["b", "c"]
        assert set(stack.gateway.feed.composer.models()) == {"b", "c"}


def written(folder: Path) -> tuple[int, int]:
    """Dumps, and requests of the history."""
    file, count = folder / "history.sqlite", 0
    if file.exists():
        with closing(sqlite3.connect(file)) as opened, suppress(sqlite3.OperationalError):
            (count,) = opened.execute("SELECT count(*) FROM requests").fetchone()
    return len([*folder.glob("*.dump.txt")]), count


async def test_what_is_written_of_requests_goes_elsewhere_from_then_on(tmp_path: Path) -> None:
    """Dumps and the history are switched on, go elsewhere, and are switched off."""
    first, second = tmp_path / "1", tmp_path / "2"

    def into(folder: Path) -> GatewayConfig:
        history = HistoryConfig(requests=2, file=folder / "history.sqlite")
        return config(A, dumps_dir=folder, history=history)

    async def until(folder: Path, found: tuple[int, int]) -> None:
        for _ in range(100):
            if await trio.to_thread.run_sync(written, folder) == found:
                return
            await trio.sleep(0.05)
        raise AssertionError(written(folder))

    async with running_stack(config(A)) as stack:
        stack.engines.load_s = 0.0
        for given, count in ((config(A), 1), (into(first), 2), (into(second), 3), (config(A), 1)):
            stack.gateway.take_over(given)
            for _ in range(count):
                assert (await stack.post(CHAT, chat("a"))).status == 200
            if given.server.dumps_dir is not None:
                await until(given.server.dumps_dir, (count, count))
                assert len(stack.gateway.book.recent) == 2
        assert (written(first), written(second)) == ((2, 2), (3, 3))


async def test_times_and_limits_hold_for_what_comes_then(autojump_clock: Clock) -> None:
    async with running_stack(config(A, stream_keepalive_s=0.0)) as stack:
        stack.engines.scripts = [[25.0, EVENT, DONE], [25.0, EVENT, DONE]]
        assert b": waits" not in await stream(stack, chat("a", stream=True))
        times = {"stream_keepalive_s": 10.0, "shutdown_grace_s": 77.0}
        given: dict[str, Any] = {**times, "max_buffered_bytes": 4000, "max_spooled_bytes": 5000}
        stack.gateway.take_over(config(A, **given))
        assert (await stream(stack, chat("a", stream=True))).count(b": waits") == 2
        assert stack.gateway.shutdown_grace_s == 77.0
        answer = await stack.post(CHAT, chat("a", user="x" * 5000))
        assert (answer.status, error_of(answer)["code"]) == (413, "body_too_large")


async def test_what_is_to_be_preloaded_by_then_is(autojump_clock: Clock) -> None:
    async with running_stack(config(A, model("b", pool="secondary"))) as stack:
        await trio.sleep(2)
        assert not stack.engines.alive
        stack.gateway.take_over(config(A, model("b", pool="secondary", preload=True)))
        await trio.sleep(2)
        assert [row.model for row in stack.manager.overview.engines()] == ["b"]


async def test_traces_go_to_another_collector_or_nowhere(autojump_clock: Clock) -> None:
    pytest.importorskip("opentelemetry")
    here = TracesConfig(endpoint="http://127.0.0.1:9/v1/traces")
    async with running_stack(config(A)) as stack:
        for given, is_traced in ((here, True), (None, False), (here, True)):
            stack.gateway.take_over(config(A, traces=given))
            assert (await stack.post(CHAT, chat("a"))).status == 200
            trace = stack.gateway.book.recent[-1].trace
            assert (trace is not None and trace.spans is not None) is is_traced
