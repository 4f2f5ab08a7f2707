"""Which answers are read whole, and what that is good for where they come in chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.asking import CHAT, Clock, chat, header
from tests.support.fakes import FakeKind
from tests.support.llama import answered, exceeded
from tests.support.schema_values import config, model, variant
from tests.support.stack import running_stack
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.engine.http.exchange import Header
from trio_gateway.engine.http.whole_answer import WHOLE_ANSWER_MAX_BYTES, whole_up_to
from trio_gateway.server.relay import engine_answer

JSON: Header = (b"content-type", b"application/json; charset=utf-8")
EVENTS: Header = (b"content-type", b"Text/Event-Stream; charset=utf-8")
SOUND: Header = (b"content-type", b"audio/mpeg")


def length(of: int) -> Header:
    return (b"content-length", b"%d" % of)


@pytest.mark.parametrize(
    ("status", "headers", "whole"),
    [
        (200, [JSON], True),
        (200, [(b"content-type", b"Application/JSON")], True),
        (200, [JSON, length(5)], True),
        (200, [JSON, length(WHOLE_ANSWER_MAX_BYTES)], True),
        (200, [JSON, length(WHOLE_ANSWER_MAX_BYTES + 1)], False),
        (200, [SOUND, length(5)], True),
        (200, [SOUND], False),
        (200, [(b"content-type", b"application/json-seq")], False),
        (200, [], False),
        (502, [(b"content-type", b"text/html")], True),
        (200, [EVENTS], False),
        (200, [EVENTS, length(5)], False),
        (500, [EVENTS], False),
    ],
)
def test_which_answers_are_read_whole(status: int, headers: list[Header], whole: bool) -> None:
    assert whole_up_to(status, headers) == (WHOLE_ANSWER_MAX_BYTES if whole else 0)


async def test_json_in_chunks_says_the_name_that_was_asked_for(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", aliases=("a",)))) as stack:
        stack.engines.chunked = True
        stack.engines.scripts = [[b'{"model":"x.gg', 1.0, b'uf","choices":[]}']]
        answer = await stack.post(CHAT, chat("a"))
        assert json.loads(answer.content) == {"model": "a", "choices": []}
        assert int(header(answer, "content-length")) == len(answer.content)


async def test_errors_in_chunks_have_the_shape_of_the_api(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = LlamaCppKind.endpoints
    monkeypatch.setattr(FakeKind, "endpoints", served)
    async with running_stack(config(model("m"))) as stack:
        stack.engines.chunked, stack.engines.status = True, 400
        stack.engines.scripts = [
            [b'{"error":{"message":"no",', b'"type":"invalid_request_error"}}']
        ]
        body = json.loads((await stack.post("/v1/messages", chat())).content)
        assert (body["type"], body["error"]["message"]) == ("error", "no")


async def test_usage_in_chunks_is_learned(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.chunked = True
        usage = answered(30)
        stack.engines.scripts = [[usage[:20], usage[20:]]]
        await stack.post(CHAT, chat())
        facts = json.loads((await stack.get("/gateway/models/m")).content)
        assert facts["count_errors"]["bound"]["answers"] == 1


async def test_a_refusal_in_chunks_moves_up(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", variant(1024), variant(4096)))) as stack:
        stack.engines.chunked, stack.engines.statuses = True, [400]
        refusal = exceeded(1500, 1024)
        stack.engines.scripts = [[refusal[:20], refusal[20:]], [answered(1500)]]
        answer = await stack.post(CHAT, chat())
        assert (answer.status, header(answer, "X-Gateway-Variant")) == (200, "4096")


async def test_an_engine_that_dies_in_json_in_chunks_costs_a_try(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.chunked = True

        def dying() -> Iterator[bytes | float]:
            yield b'{"half'
            stack.engines.processes[0].exit()
            yield 1.0

        stack.engines.scripts = [dying(), [b'{"whole":1}']]
        answer = await stack.post(CHAT, chat())
        assert (answer.status, answer.content) == (200, b'{"whole":1}')


async def test_json_that_is_longer_than_that_is_passed_through(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_answer, "whole_up_to", lambda *_: 4)
    async with running_stack(config(model("m"))) as stack:
        stack.engines.chunked = True
        stack.engines.scripts = [[b'{"a"', b":1,", 1.0, b'"b":2}']]
        answer = await stack.post(CHAT, chat())
        assert (answer.status, answer.content) == (200, b'{"a":1,"b":2}')
        stack.engines.statuses, stack.engines.scripts = [500], [[b"much ", b"too long"]]
        assert (await stack.post(CHAT, chat())).content == b"much too long"
        assert stack.engines.exchanges[-1].closed_at is not None
