"""Waiting is visible: comments in streams, decisions in headers, the queue and the engines."""

from __future__ import annotations

import json
from typing import Any

import httpcore
import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, header, stream
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.schema import EngineTimeouts
from trio_gateway.server.api.endpoints import ENDPOINTS

LONG_START = EngineTimeouts(startup_s=50.0)


async def page(stack: Stack, path: str) -> list[dict[str, Any]]:
    content = json.loads((await stack.get(f"/gateway/{path}")).content)
    rows: list[dict[str, Any]] = content["tickets" if path == "queue" else "engines"]
    return rows


def events_of(answer: bytes) -> list[str]:
    return answer.decode().strip("\n").split("\n\n")


# -- comments --------------------------------------------------------------------------------


async def test_a_stream_that_waits_for_a_load_gets_comments_and_then_its_answer(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m", variant(load_time_s=38.0)))) as stack:
        stack.engines.load_s = 40.0
        stack.engines.scripts = [[EVENT, DONE]]
        begun = trio.current_time()
        body = chat(stream=True)
        async with stack.http.stream("POST", f"http://gateway{CHAT}", content=body) as response:
            assert trio.current_time() - begun == pytest.approx(15.0)
            assert response.status == 200
            assert header(response, "Content-Type") == "text/event-stream"
            assert header(response, "X-Gateway-Model") == "m"
            answer = b"".join([piece async for piece in response.aiter_stream()])
        loading, again, facts, event, done = events_of(answer)
        assert loading == ": waits for m to load (15 s of about 38 s); expected in about 23 s"
        assert again == ": waits for m to load (30 s of about 38 s); expected in about 8 s"
        assert facts.startswith(": X-Gateway-Model: m; X-Gateway-Need: ")
        assert "X-Gateway-Counted: bound; at-most" in facts
        assert "X-Gateway-Decision: started" in facts
        assert f"{event}\n\n{done}\n\n".encode() == EVENT + DONE


async def test_a_stream_that_queues_is_told_what_is_in_the_way_and_how_many_are_before_it(
    autojump_clock: Clock,
) -> None:
    given = config(model("a"), model("b"))
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 100.0, DONE], [EVENT, DONE], [EVENT, DONE]]
        nursery.start_soon(stream, stack, chat("a", stream=True))
        await trio.sleep(2)
        nursery.start_soon(stream, stack, chat("b", stream=True))
        await trio.sleep(1)
        first = events_of(await stream(stack, chat("b", stream=True)))[0]
        assert first == (": waits for 1 answer of a to end, then b loads; 1 request is before it")


async def test_a_stream_that_waits_for_the_end_of_a_back_off_is_told_so(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"), stream_keepalive_s=0.6)) as stack:
        stack.engines.scripts = [[b"{}"], [b"{}"], [EVENT, DONE]]
        for _ in range(2):
            assert (await stack.post(CHAT, chat())).status == 200
            stack.engines.alive[0].exit()
        explained = json.loads((await stack.post("/gateway/explain", chat())).content)
        said = "m:4096 failed 2 times in a row; the next start is in 1.0 s"
        assert explained["refused"] is None
        assert explained["back_off"].startswith(f"{said}. Last failure: ")
        assert explained["expected_wait_s"] > 1
        async with trio.open_nursery() as nursery:
            answers = []

            async def ask() -> None:
                answers.append(events_of(await stream(stack, chat(stream=True))))

            nursery.start_soon(ask)
            await trio.sleep(0.25)
            (row,) = await page(stack, "queue")
            assert row["back_off"] == said.replace("1.0", "0.8")
        assert answers[0][0].startswith(f": waits as {said.replace('1.0', '0.4')}; then it loads (")
        assert answers[0][1].startswith(": waits for m to load (0 s of ")


async def test_a_stream_that_waits_for_its_first_token_is_told_so(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), stream_keepalive_s=10.0)) as stack:
        stack.engines.scripts = [[25.0, EVENT, DONE]]
        comments = events_of(await stream(stack, chat(stream=True)))[:-3]
        assert comments == [
            ": waits for the first token (9 s so far)",  # after a load of 1 s
            ": waits for the first token (19 s so far)",
        ]


async def test_a_key_that_may_not_use_a_model_does_not_learn_from_a_comment_that_it_runs(
    autojump_clock: Clock,
) -> None:
    keys = [
        ApiKey(name="all", secret="k" * 40),
        ApiKey(name="few", secret="f" * 40, models=frozenset({"b"})),
    ]
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=tuple(keys))
    given = config(model("a"), model("b"), access=access)
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 100.0, DONE], [EVENT, DONE]]
        whole, few = ({"Authorization": f"Bearer {letter * 40}"} for letter in "kf")
        nursery.start_soon(stack.post, CHAT, chat("a", stream=True), whole)
        await trio.sleep(2)
        said = (await stack.post(CHAT, chat("b", stream=True), few)).content
        assert b": waits for 1 answer of another model to end, then b loads" in said


async def test_without_stream_keepalive_a_stream_waits_in_silence(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), stream_keepalive_s=0.0)) as stack:
        stack.engines.load_s = 60.0
        stack.engines.scripts = [[EVENT, DONE]]
        assert await stream(stack, chat(stream=True)) == EVENT + DONE


async def test_a_request_that_is_no_stream_waits_in_silence(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 60.0
        response = await stack.post(CHAT, chat())
        assert (response.status, response.content) == (200, b"{}")
        assert int(header(response, "X-Gateway-Load-Ms")) == pytest.approx(60_000, rel=0.01)


async def test_an_error_after_the_first_comment_is_an_error_event_without_done(
    autojump_clock: Clock,
) -> None:
    given = config(model("m", variant(timeouts=LONG_START)))
    async with running_stack(given) as stack:
        stack.engines.load_s = 1000.0
        *comments, last = events_of(await stream(stack, chat(stream=True)))
        assert len(comments) == 3
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["code"] == "engine_startup_timeout"
        assert "not ready within 50 s" in error["message"]


@pytest.mark.parametrize("headers", [{}, {"Anthropic-Version": "2023-06-01"}])
async def test_an_engine_s_own_error_after_the_first_comment_is_an_error_event(
    autojump_clock: Clock, headers: dict[str, str]
) -> None:
    """In the shape of the stream that it ends, which is its endpoint's."""
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s, stack.engines.status = 20.0, 418
        stack.engines.scripts = [[b'{"error":{"message":"unlucky","code":7}}']]
        answer = (await stack.post(CHAT, chat(stream=True), headers)).content
        assert json.loads(events_of(answer)[-1].removeprefix("data: ")) == {
            "error": {"message": "unlucky", "code": 7}
        }


async def test_a_bug_after_the_first_comment_is_an_error_event(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 20.0
        monkeypatch.setattr(stack.engines.client_type, "transform_response", fail)
        *_, last = events_of(await stream(stack, chat(stream=True)))
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["type"] == "internal_error"
        assert "secret" not in error["message"]


async def test_a_shutdown_ends_a_stream_that_waits_with_an_error_event(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        stack.engines.load_s = 100.0
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await stream(stack, chat(stream=True)))

        nursery.start_soon(ask)
        await trio.sleep(20)
        stack.gateway.begin_shutdown()
        await stack.manager.stopped.wait()
        await trio.testing.wait_all_tasks_blocked()
        (answer,) = answers
        assert b"the gateway is stopping" in answer
        assert b"[DONE]" not in answer


@pytest.mark.parametrize("waited_s", [5.0, 20.0], ids=["before its 200", "after its 200"])
async def test_a_client_that_leaves_a_stream_while_it_waits_takes_its_ticket_along(
    waited_s: float, autojump_clock: Clock
) -> None:
    given = config(model("a"), model("b"))
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 1000.0]]
        nursery.start_soon(stream, stack, chat("a", stream=True))
        await trio.sleep(2)
        with trio.move_on_after(waited_s):
            await stream(stack, chat("b", stream=True))
        await trio.testing.wait_all_tasks_blocked()
        assert await page(stack, "queue") == []
        (engine,) = await page(stack, "engines")
        assert (engine["model"], engine["state"]) == ("a", "ready")  # its drain was called off
        nursery.cancel_scope.cancel(reason="the test is over")


# -- decisions -------------------------------------------------------------------------------


async def test_the_decision_says_how_a_request_came_by_its_engine(autojump_clock: Clock) -> None:
    async with running_stack(config(model("a"), model("b"))) as stack:
        decisions = [
            header(await stack.post(CHAT, chat(name)), "X-Gateway-Decision")
            for name in ("a", "a", "b", "b")
        ]
        assert decisions == ["started", "reused", "swapped; evicted=a:4096", "reused"]


async def test_an_unknown_priority_is_a_400_that_names_those_there_are(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"))) as stack:
        response = await stack.post(CHAT, chat(), {"X-Gateway-Priority": "urgent"})
        assert (response.status, error_of(response)["code"]) == (400, "invalid_priority")
        assert "interactive or batch" in error_of(response)["message"]


async def test_a_batch_request_lets_interactive_ones_go_first(autojump_clock: Clock) -> None:
    given = config(model("m", variant(parallel=1)))
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[1.0, b"{}"]] * 3
        order = []

        async def ask(name: str, headers: dict[str, str]) -> None:
            await stack.post(CHAT, chat(), headers)
            order.append(name)

        nursery.start_soon(ask, "first", {})
        await trio.sleep(0.1)
        nursery.start_soon(ask, "batch", {"X-Gateway-Priority": "Batch"})
        await trio.sleep(0.1)
        nursery.start_soon(ask, "interactive", {})
        await trio.sleep(10)
        assert order == ["first", "interactive", "batch"]


# -- pages -----------------------------------------------------------------------------------


async def test_the_queue_shows_who_waits_for_what_and_no_key(autojump_clock: Clock) -> None:
    given = config(model("a"), model("b"))
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 100.0, DONE]]
        nursery.start_soon(stream, stack, chat("a", stream=True))
        await trio.sleep(2)
        key = {"Authorization": "Bearer very-secret"}
        nursery.start_soon(stack.post, CHAT, chat("b"), key)
        nursery.start_soon(stack.post, CHAT, chat("b"), {"X-Gateway-Priority": "batch"})
        await trio.sleep(3)
        first, second = sorted(await page(stack, "queue"), key=lambda row: row["position"])
        assert {"model", "need", "waited_s", "expected_wait_s"} < set(first)
        then = "then b loads"
        turn = "the turn of a to end (at most 7 s) and for 1 answer to end"
        assert first["sentence"] == f"waits for {turn}, {then}"
        assert second["sentence"] == f"{first['sentence']}; 1 request is before it"
        assert (first["model"], first["waited_s"], first["position"]) == ("b", 3.0, 1)
        assert (first["priority"], second["priority"]) == ("interactive", "batch")
        assert first["client"].startswith("key ")
        assert "secret" not in first["client"]
        assert second["client"] == "127.0.0.1"
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_engines_show_what_runs_and_what_loads(autojump_clock: Clock) -> None:
    given = config(model("a", variant(memory_bytes=2**30)), model("b", pool="secondary"))
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        assert await page(stack, "engines") == []
        await stack.post(CHAT, chat("a"))
        await trio.sleep(4)
        nursery.start_soon(stack.post, CHAT, chat("b"))
        await trio.sleep(0.5)
        ready, loading = await page(stack, "engines")
        assert (ready["model"], ready["variant"], ready["state"]) == ("a", "4096", "ready")
        assert (ready["slots"], ready["leases"], ready["pid"]) == (2, 0, 1)
        assert (ready["idle_s"], ready["loading_s"]) == (4.5, None)
        assert ready["load_s"] == pytest.approx(1.0, abs=0.05)
        assert ready["memory_bytes"] == 2**30
        assert ready["port"] in stack.engines.by_port
        assert (loading["model"], loading["state"], loading["pool"]) == (
            "b",
            "starting",
            "secondary",
        )
        assert (loading["loading_s"], loading["idle_s"]) == (0.5, None)


# -- how long ------------------------------------------------------------------------------------


async def test_the_expected_wait_counts_down_with_the_answer_in_the_way(
    autojump_clock: Clock,
) -> None:
    one = model("m", variant(parallel=1))
    async with running_stack(config(one)) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[piece for _ in range(500) for piece in (EVENT, 0.1)] + [DONE]]
        nursery.start_soon(stream, stack, chat(stream=True, max_tokens=500))
        await trio.sleep(1.5)
        nursery.start_soon(stream, stack, chat(stream=True, max_tokens=500))
        found = []
        for _ in range(4):
            await trio.sleep(10)
            (row,) = await page(stack, "queue")
            explained = json.loads((await stack.post("/gateway/explain", chat())).content)
            found.append((row["expected_wait_s"], explained["expected_wait_s"]))
        nursery.cancel_scope.cancel(reason="it was seen")
    waits = [wait for wait, _ in found]
    assert waits == [pytest.approx(left, abs=1.5) for left in (39.5, 29.5, 19.5, 9.5)]
    assert [later - wait for wait, later in found] == [pytest.approx(49, abs=1.5)] * 4


async def test_before_anything_was_measured_the_wait_is_said_not_to_be_known(
    autojump_clock: Clock,
) -> None:
    one = model("m", variant(parallel=1))
    async with running_stack(config(one)) as stack, trio.open_nursery() as nursery:
        explained = json.loads((await stack.post("/gateway/explain", chat())).content)
        assert (explained["expected_wait_s"], explained["expected_load_s"]) == (None, None)
        stack.engines.scripts = [[300.0, b"{}"], [EVENT, DONE]]
        nursery.start_soon(stack.post, CHAT, chat())
        await trio.sleep(2)
        (first, *_) = events_of(await stream(stack, chat(stream=True)))
        assert first == ": waits for a free place of m: 1 answer is running"


# -- an upload -------------------------------------------------------------------------------

LIMIT, PIECES = 4, 40  # of a file, all sent at once
PAGE = {"Authorization": "Bearer a page of many users"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"input": "a piece"}),
        ("/api/embed", {"input": "a piece"}),
        ("/v1/rerank", {"query": "a", "documents": ["piece"]}),
        ("/tokenize", {"content": "a piece"}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "a piece"}]}),
    ],
)
async def test_a_file_in_many_requests_is_taken_in_and_chats_are_answered_meanwhile(
    path: str, fields: dict[str, Any], autojump_clock: Clock
) -> None:
    served = frozenset(row.name for row in ENDPOINTS)
    one = model("m", variant(parallel=1), endpoints=served)
    given = config(one, queue_limit=LIMIT)
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        answer = b'{"data":[{"index":0,"embedding":[1.0]}]}'
        stack.engines.scripts = [[1.0, answer] for _ in range(PIECES + 1)]
        statuses: list[int] = []

        async def send() -> None:
            body = json.dumps({"model": "m", **fields}).encode()
            async with httpcore.AsyncConnectionPool(network_backend=stack.network) as http:
                url = f"http://gateway{path}"
                answer = await http.request("POST", url, content=body, headers=[*PAGE.items()])
                statuses.append(answer.status)

        for _ in range(PIECES):
            nursery.start_soon(send)
        await trio.sleep(10)
        begun = trio.current_time()
        assert (await stack.post(CHAT, chat("m"), PAGE)).status == 200
        assert trio.current_time() - begun < 4
    assert statuses == [200] * PIECES
