"""What the gateway writes down of each request, whole and streamed, served and refused."""

from __future__ import annotations

import gc
import json

import msgspec
import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, stream
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.engine.errors import EngineLost
from trio_gateway.engine.happenings import Change, EngineChanged
from trio_gateway.engine.scheduling.events import Cause
from trio_gateway.server.http.scopes import RequestState
from trio_gateway.server.records.request_row import RequestRow, row_of
from trio_gateway.server.relay.engine_stream import EngineStream

ANSWER = json.dumps(
    {
        "model": "m",
        "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
        "timings": {
            "prompt_n": 2, "prompt_ms": 20.0, "cache_n": 7, "predicted_n": 4,
            "predicted_ms": 200.0, "draft_n": 6, "draft_n_accepted": 3,
        },
    }
).encode()  # fmt: skip


def rows(stack: Stack) -> list[RequestRow]:
    return [row_of(record, trio.current_time()) for record in stack.gateway.book.recent]


def the_row(stack: Stack) -> RequestRow:
    (row,) = rows(stack)
    assert stack.gateway.book.live == {}
    return row


async def test_a_whole_answer(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[ANSWER]]
        answer = await stack.post(CHAT, chat())
        row = the_row(stack)
        assert dict(answer.headers)[b"x-gateway-request-id"].decode() == row.id
    assert (row.endpoint, row.asked, row.model, row.variant) == (
        "chat/completions",
        "m",
        "m",
        "4096",
    )
    assert (row.decision, row.stage, row.outcome, row.status) == ("started", "done", "ok", 200)
    assert (row.prompt_tokens, row.cached_tokens, row.generated_tokens) == (9, 7, 4)
    assert (row.drafted_tokens, row.accepted_tokens, row.finish) == (6, 3, "stop")
    assert row.speed == pytest.approx(20.0)
    assert row.load_s == pytest.approx(1.0, abs=0.1)
    assert row.request_bytes == len(chat())
    assert row.answer_bytes == len(ANSWER)
    assert not row.is_streamed
    assert row.error is None


async def test_python_keeps_a_record_without_a_dict(autojump_clock: Clock) -> None:
    """It does so for 29 fields; a record with more is four times as large."""
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[ANSWER], [EVENT, DONE]]
        await stack.post(CHAT, chat())
        await stack.post(CHAT, chat(stream=True))
        fields = [len(vars(record)) for record in stack.gateway.book.recent]
    assert len(fields) == 2
    assert max(fields) <= 27, "some room for what is rare"


async def test_one_token_alone_has_no_speed(autojump_clock: Clock) -> None:
    """llama-server makes it with the prompt, and says that it has taken a millionth of a second."""
    answer = ANSWER.replace(b'"completion_tokens": 4', b'"completion_tokens": 1')
    answer = answer.replace(b'"predicted_ms": 200.0', b'"predicted_ms": 0.001')
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[answer]]
        await stack.post(CHAT, chat())
        row = the_row(stack)
    assert row.generated_tokens == 1
    assert row.speed is None


async def test_a_stream(autojump_clock: Clock) -> None:
    last = (
        b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}\n\n'
    )
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        stack.gateway.book.recent.clear()
        stack.engines.scripts = [[EVENT, 1.0, EVENT, 1.0, EVENT, last, DONE]]
        answer = await stream(stack, chat(stream=True))
        row = the_row(stack)
    assert (row.decision, row.outcome, row.finish) == ("reused", "ok", "length")
    assert row.is_streamed
    assert row.generated_tokens == 3
    assert row.first_byte_after_s == pytest.approx(0.0, abs=0.1)
    assert row.took_s == pytest.approx(2.0, abs=0.1)
    assert row.speed == pytest.approx(1.5, abs=0.1)
    assert row.answer_bytes == len(answer)


async def test_a_stream_that_says_nothing_of_its_tokens_says_why_it_ends(
    autojump_clock: Clock,
) -> None:
    last = b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[EVENT, EVENT, last, DONE]]
        await stream(stack, chat(stream=True))
        row = the_row(stack)
    assert (row.prompt_tokens, row.generated_tokens, row.finish) == (None, 2, "length")


async def test_a_stream_that_comes_in_one_piece_shows_no_speed(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[EVENT * 3 + DONE]]
        await stream(stack, chat(stream=True))
        row = the_row(stack)
    assert (row.generated_tokens, row.speed) == (3, None)


async def test_a_stream_of_a_message(autojump_clock: Clock) -> None:
    begun = {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 0}}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"text": "tok"}}
    ended = {
        "type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}
    }  # fmt: skip
    events = [b"data: %b\n\n" % json.dumps(one).encode() for one in (begun, *[delta] * 9, ended)]
    async with running_stack(config(model("m"))) as stack:
        stack.engines.kind.endpoints |= {"messages"}
        stack.engines.scripts = [events]
        await stream(stack, chat(stream=True), "/v1/messages")
        row = the_row(stack)
    assert (row.endpoint, row.finish) == ("messages", "end_turn")
    assert (row.prompt_tokens, row.generated_tokens) == (5, 7)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/api/embed", "/upstream/m/x"])
async def test_what_is_only_read(autojump_clock: Clock, path: str) -> None:
    answer = {"usage": {"prompt_tokens": 5}, "data": [{"index": 0, "embedding": [0.5]}]}
    body = {"model": "m", "input": "Hi", "query": "Hi", "documents": ["Hi"]}
    endpoints = frozenset({"embeddings", "rerank"})
    async with running_stack(config(model("m", endpoints=endpoints))) as stack:
        stack.engines.scripts = [[json.dumps(answer).encode()]]
        await stack.post(path, json.dumps(body).encode())
        row = the_row(stack)
    assert (row.outcome, row.prompt_tokens, row.generated_tokens) == ("ok", 5, 0)


async def test_one_that_is_under_way_is_seen(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        stack.engines.load_s = 10.0
        stack.engines.scripts = [[EVENT, 10.0, DONE]]
        nursery.start_soon(stream, stack, chat(stream=True))
        await trio.sleep(5.0)
        (record,) = stack.gateway.book.live.values()
        assert row_of(record, trio.current_time()).stage == "waiting"
        await trio.sleep(8.0)
        row = row_of(record, trio.current_time())
        assert (row.stage, row.generated_tokens) == ("answering", 1)
        assert row.took_s == pytest.approx(13.0, abs=0.1)


async def test_one_that_is_refused_before_its_model_is_known(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat("unknown"))
        row = the_row(stack)
    assert (row.status, row.outcome, row.error) == (404, "refused", "model_not_found")
    assert row.model is None


async def test_one_whose_engine_crashes_before_it_answers(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.refusals = [EngineLost("gone"), EngineLost("gone")]
        await stack.post(CHAT, chat())
        row = the_row(stack)
    assert (row.status, row.outcome, row.error) == (502, "failed", "engine_failed")
    assert row.tries == 2


async def test_one_whose_stream_breaks_off(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[EVENT, 10.0, DONE]]
        nursery.start_soon(stream, stack, chat(stream=True))
        await trio.sleep(5.0)
        stack.engines.exchanges[0].abort(EngineLost("the connection broke"))
        stack.engines.alive[0].exit("was killed by signal 9")
    row = the_row(stack)
    assert (row.status, row.outcome, row.error) == (200, "broken_off", "engine_failed")


async def test_one_whose_client_goes(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[EVENT, 100.0, DONE]]
        with trio.move_on_after(10.0):
            await stream(stack, chat(stream=True))
        await trio.testing.wait_all_tasks_blocked()
        row = the_row(stack)
    assert (row.outcome, row.stage) == ("client_gone", "done")


async def test_one_that_waits_in_vain(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 100.0
        with trio.move_on_after(10.0):
            await stream(stack, chat(stream=True))
        await trio.testing.wait_all_tasks_blocked()
        row = the_row(stack)
    assert (row.outcome, row.decision, row.load_s) == ("client_gone", None, None)
    assert row.waited_s == pytest.approx(10.0, abs=0.1)


async def test_pages_are_no_news(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.get("/health")
        await stack.get("/v1/models")
        assert rows(stack) == []


async def test_a_row_has_nothing_of_what_was_said(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[ANSWER.replace(b"Hi", b"my-answer")]]
        await stack.post(
            CHAT,
            chat(messages=[{"role": "user", "content": "my-prompt"}]),
            headers={"Authorization": "Bearer my-key"},
        )
        text = msgspec.json.encode(the_row(stack))
    for secret in (b"my-answer", b"my-prompt", b"my-key"):
        assert secret not in text


TURNS = [
    {"role": "user", "content": "How do I boil an egg?"},
    {"role": "assistant", "content": "In water."},
    {"role": "user", "content": "And a potato?"},
    {"role": "assistant", "content": "The same way."},
    {"role": "user", "content": "Thanks."},
]


def turns(number: int, clock: str = "noon") -> bytes:
    said = {"role": "system", "content": f"It is {clock}. " + "Be brief. " * 100}
    return chat(messages=[said, *TURNS[:number]])


async def test_requests_of_a_conversation_have_the_same_one(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), model("n"))) as stack:
        for body in (turns(1), turns(3), turns(5, "ten"), chat("n", messages=TURNS[:1]), chat()):
            assert (await stack.post(CHAT, body)).status == 200
        first, second, third, elsewhere, other = rows(stack)
    assert first.conversation == second.conversation == third.conversation
    assert first.conversation is not None
    assert elsewhere.conversation == first.conversation
    assert other.conversation not in (None, first.conversation)
    breaks = [row.cache_break for row in (first, second, third)]
    assert breaks == [None, None, "messages[0] (system), byte 13"]


async def test_what_a_client_calls_its_conversation_comes_first(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), session_headers=("x-mine",))) as stack:
        for name, value in (("X-Mine", "one"), ("X-Mine", "two"), ("X-Session-Id", "three")):
            await stack.post(CHAT, turns(1), {name: value})
        first, second, third = rows(stack)
    assert (first.conversation, second.conversation) == ("one", "two")
    assert third.conversation not in ("three", None)


async def test_what_engines_do_is_published(autojump_clock: Clock) -> None:
    seen: list[EngineChanged] = []
    given = config(model("a", variant(context=4096)), model("b", variant(context=4096)))
    async with running_stack(given) as stack:
        stack.manager.bus.listen(EngineChanged, seen.append)
        await stack.post(CHAT, chat("a"))
        await stack.post(CHAT, chat("b"))
    told = [(str(change.key), change.change) for change in seen[:5]]
    assert told == [
        ("a:4096", Change.STARTING),
        ("a:4096", Change.READY),
        ("a:4096", Change.STOPPING),
        ("a:4096", Change.GONE),
        ("b:4096", Change.STARTING),
    ]
    assert seen[4].evicted == (seen[0].key,)
    assert seen[1].load_s == pytest.approx(1.0, abs=0.1)
    assert "b" in seen[2].reason
    assert seen[2].cause is Cause.SWAP
    assert not seen[3].killed


async def test_nothing_of_a_request_is_left_to_the_garbage_collector(
    autojump_clock: Clock,
) -> None:
    """It would run a hundred times as often, and all others wait for it."""
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        gc.collect()
        # What other tests of this process left.
        before = {id(o) for o in gc.get_objects() if isinstance(o, RequestState | EngineStream)}
        gc.disable()
        try:
            for _ in range(20):
                stack.engines.scripts = [[EVENT, DONE], [ANSWER]]
                await stream(stack, chat(stream=True))
                await stack.post(CHAT, chat())
            kinds = RequestState | EngineStream
            alive = [o for o in gc.get_objects() if isinstance(o, kinds) and id(o) not in before]
        finally:
            gc.enable()
    assert len(alive) < 5, [type(o) for o in alive]
