"""OpenAI answers as Ollama's clients read them."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama import ChatResponse, EmbeddingsResponse, EmbedResponse, GenerateResponse

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.ollama.answer import (
    BROKEN_OFF,
    NdjsonTranslator,
    load_answer,
    rfc3339,
    translate_answer,
    translate_error,
)
from trio_gateway.server.ollama.lines import Durations
from trio_gateway.server.ollama.request import Kind

AT = "2026-11-05T10:00:00.123456Z"
MEASURED = Durations(total_s=4.0, load_s=1.0, prompt_s=0.5, answer_s=2.5)
TIMINGS = {
    "cache_n": 20, "prompt_n": 6, "prompt_ms": 250.0, "predicted_n": 3, "predicted_ms": 30.0,
}  # fmt: skip
USAGE = {"prompt_tokens": 26, "completion_tokens": 3, "total_tokens": 29}
DONE = b"data: [DONE]\n\n"


def event(choice: dict[str, Any] | None = None, **fields: Any) -> bytes:
    choices = [] if choice is None else [{"index": 0, "finish_reason": None, **choice}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event({"delta": fields})


def end(reason: str = "stop") -> bytes:
    return event({"delta": {}, "finish_reason": reason})


def call_delta(index: int, arguments: str, **fields: Any) -> bytes:
    name = {"name": fields.pop("name")} if "name" in fields else {}
    function = {"arguments": arguments, **name}
    return delta(tool_calls=[{"index": index, "function": function, **fields}])


def lines(stream: bytes, kind: Kind = Kind.CHAT) -> list[dict[str, Any]]:
    return translated([stream], kind)


def translated(pieces: list[bytes], kind: Kind = Kind.CHAT) -> list[dict[str, Any]]:
    translator = NdjsonTranslator(kind, "m", AT)
    out = b"".join([*map(translator.feed, pieces), translator.finish(MEASURED)])
    assert out.endswith(b"\n")
    # As the ollama client takes it apart: by every character that ends a line.
    found = [json.loads(line) for line in out.decode().splitlines()]
    for line in found:
        if "error" in line:
            assert set(line) == {"error"}
        else:
            shape = ChatResponse if kind is Kind.CHAT else GenerateResponse
            shape.model_validate(line)
            assert (line["model"], line["created_at"]) == ("m", AT)
    assert [line for line in found if line.get("done") or "error" in line] == found[-1:]
    return found


CHAT_STREAM = (
    delta(role="assistant", content=None)
    + b": a comment\n\n"
    + delta(reasoning_content="hm")
    + delta(content="Grüß ")
    + delta(content="Gott\u2028\x85.")
    + end()
    + event(usage=USAGE, timings=TIMINGS)
    + DONE
)


# -- streams -------------------------------------------------------------------------------------


def test_a_streamed_chat() -> None:
    waiting, thinking, first, second, last = lines(CHAT_STREAM)
    assert waiting["message"] == {"role": "assistant", "content": ""}  # the comment
    assert thinking["message"] == {"role": "assistant", "content": "", "thinking": "hm"}
    assert [line["message"]["content"] for line in (first, second)] == ["Grüß ", "Gott\u2028\x85."]
    assert not any(line["done"] for line in (waiting, thinking, first, second))
    assert last == {
        "model": "m", "created_at": AT, "message": {"role": "assistant", "content": ""},
        "done": True, "done_reason": "stop",
        "total_duration": 4_000_000_000, "load_duration": 1_000_000_000,
        "prompt_eval_count": 26, "prompt_eval_duration": 250_000_000,
        "eval_count": 3, "eval_duration": 30_000_000,
    }  # fmt: skip


def test_the_gateway_s_times_stand_where_the_engine_has_none() -> None:
    *_, last = lines(delta(content="x") + end() + event(usage=USAGE) + DONE)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (500_000_000, 2_500_000_000)
    *_, last = lines(delta(content="x") + end() + event(timings=TIMINGS) + DONE)
    assert (last["prompt_eval_count"], last["eval_count"]) == (26, 3)


@given(st.lists(st.integers(0, len(CHAT_STREAM)), max_size=12), st.booleans())
def test_however_a_stream_is_cut_the_lines_are_the_same(cuts: list[int], crlf: bool) -> None:
    stream = CHAT_STREAM.replace(b"\n", b"\r\n") if crlf else CHAT_STREAM
    edges = [0, *sorted(cuts), len(stream)]
    assert translated([stream[a:b] for a, b in pairwise(edges)]) == lines(CHAT_STREAM)


def test_each_byte_alone_gives_the_same_lines() -> None:
    assert translated([bytes([b]) for b in CHAT_STREAM]) == lines(CHAT_STREAM)


@given(st.text(), st.text())
def test_any_text_arrives_as_it_is(content: str, thinking: str) -> None:
    stream = delta(content=content) + delta(reasoning=thinking) + DONE
    messages = [line["message"] for line in lines(stream)]
    assert "".join(m["content"] for m in messages) == content
    assert "".join(m.get("thinking", "") for m in messages) == thinking


@given(st.binary(max_size=200))
def test_no_bytes_break_the_translator(stream: bytes) -> None:
    translator = NdjsonTranslator(Kind.CHAT, "m", AT)
    out = translator.feed(b"data:" + stream) + translator.finish(MEASURED)
    for line in out.splitlines():
        json.loads(line)


def test_tool_calls_come_whole_with_their_arguments_as_an_object() -> None:
    stream = (
        call_delta(0, "", id="a1", name="get_weather")
        + call_delta(0, '{"ci')
        + call_delta(0, 'ty":"Graz"}')
        + call_delta(1, "{}", id="b2", name="now")
        + end("tool_calls")
        + DONE
    )
    calls, last = lines(stream)
    assert calls["message"]["tool_calls"] == [
        {
            "id": "a1",
            "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Graz"}},
        },
        {"id": "b2", "function": {"index": 1, "name": "now", "arguments": {}}},
    ]
    assert last["done_reason"] == "stop"
    parsed = ChatResponse.model_validate(calls).message.tool_calls
    assert parsed is not None
    assert parsed[0].function.arguments == {"city": "Graz"}


def test_a_tool_call_that_the_limit_cut_is_left_out() -> None:
    (last,) = lines(call_delta(0, '{"ci', name="f") + end("length") + DONE)
    assert last["done_reason"] == "length"


def test_arguments_that_are_not_an_object_are_an_error() -> None:
    (error,) = lines(call_delta(0, "[1]", name="f") + end("tool_calls") + DONE)
    assert error == {"error": "the arguments of the call to f are not an object"}


def test_a_streamed_completion() -> None:
    stream = event({"text": "once "}) + event({"text": "more", "finish_reason": "length"}) + DONE
    first, second, last = lines(stream, Kind.GENERATE)
    assert (first["response"], second["response"], last["response"]) == ("once ", "more", "")
    assert last["done_reason"] == "length"


def test_a_streamed_infill_ends_without_a_done_event() -> None:
    def infill(text: str, **fields: Any) -> bytes:
        return b"data: " + json.dumps({"content": text, "stop": False, **fields}).encode() + b"\n\n"

    numbers = {"tokens_predicted": 2, "tokens_evaluated": 5, "timings": TIMINGS}
    ended = infill("", stop=True, stop_type="limit", **numbers)
    first, second, last = lines(infill("a") + infill("b") + ended, Kind.GENERATE)
    assert (first["response"], second["response"]) == ("a", "b")
    assert (last["done_reason"], last["eval_count"], last["prompt_eval_count"]) == ("length", 2, 5)


def test_log_probabilities_are_passed_on() -> None:
    token = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}
    first, _ = lines(event({"delta": {"content": "x"}, "logprobs": {"content": [token]}}) + DONE)
    assert first["logprobs"] == [token]


def test_a_whole_answer_in_one_event() -> None:
    """What a waiting stream makes of an engine that does not stream."""
    calls = [{"id": "a", "function": {"name": "f", "arguments": '{"a":1}'}}]
    message = {"role": "assistant", "content": "Hi", "tool_calls": calls}
    text, call, last = lines(event({"message": message, "finish_reason": "tool_calls"}) + DONE)
    assert text["message"]["content"] == "Hi"
    assert call["message"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert last["done"]


# -- streams that are not complete ---------------------------------------------------------------

ERROR = b'data: {"error":{"message":"m: the engine crashed","type":"engine_error"}}\n\n'


@pytest.mark.parametrize("cut", [b"", b'data: {"choices":[{"del\n\n'])
def test_an_error_event_is_the_last_line(cut: bytes) -> None:
    first, error = lines(delta(content="x") + cut + ERROR)
    assert first["message"]["content"] == "x"
    assert error == {"error": "m: the engine crashed"}


def test_nothing_follows_an_error() -> None:
    assert len(lines(ERROR + delta(content="x") + end() + DONE)) == 1


def test_an_error_after_the_reason_is_an_error_still() -> None:
    *_, last = lines(delta(content="x") + end() + ERROR)
    assert "error" in last


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        delta(content="x"),
        delta(content="x") + b'data: {"choices":[{"del',
        delta(content="x") + end() + b'data: {"us\n\n',
        b"data: {broken}\n\n" + delta(content="x") + end() + DONE,
        b'data: {"choices":"x"}\n\n' + DONE,
        b"<html>\n\n",
    ],
)
def test_a_stream_that_is_not_complete_is_never_done(stream: bytes) -> None:
    assert lines(stream)[-1] == {"error": BROKEN_OFF}


def test_nothing_follows_an_event_that_is_none() -> None:
    stream = b"data: {broken}\n\n" + delta(content="x") + end() + DONE
    assert lines(stream) == [{"error": BROKEN_OFF}]


@pytest.mark.parametrize("end_of_it", [end() + DONE, end(), DONE, DONE.strip(), end().strip()])
def test_a_reason_or_a_done_event_completes_it(end_of_it: bytes) -> None:
    assert lines(delta(content="x") + end_of_it)[-1]["done"]


@given(st.integers(0, len(CHAT_STREAM)))
def test_the_start_of_a_stream_is_done_only_with_its_reason(length: int) -> None:
    last = lines(CHAT_STREAM[:length])[-1]
    # A last event without its empty line counts, as engines may omit that.
    assert ("error" in last) or (end().strip() in CHAT_STREAM[:length])


def test_the_gateway_can_end_a_stream_with_an_error_once() -> None:
    translator = NdjsonTranslator(Kind.CHAT, "m", AT)
    assert json.loads(translator.fail("gone")) == {"error": "gone"}
    assert translator.fail("gone") == translator.finish(MEASURED) == b""


# -- whole answers -------------------------------------------------------------------------------


def whole(choice: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, **choice}], **fields}).encode()


def test_a_whole_chat() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":[1]}'}}]
    message = {
        "role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": calls,
    }  # fmt: skip
    body = whole({"message": message, "finish_reason": "tool_calls"}, usage=USAGE, timings=TIMINGS)
    answer = ChatResponse.model_validate_json(
        translate_answer(Kind.CHAT, "m:latest", AT, body, MEASURED)
    )
    assert (answer.model, answer.done, answer.done_reason) == ("m:latest", True, "stop")
    assert (answer.message.content, answer.message.thinking) == ("", "hm")
    assert answer.message.tool_calls is not None
    assert answer.message.tool_calls[0].function.arguments == {"x": [1]}
    assert (answer.prompt_eval_count, answer.eval_count) == (26, 3)
    assert (answer.total_duration, answer.eval_duration) == (4_000_000_000, 30_000_000)


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": "Hi"}, "finish_reason": "length"},
        {"text": "Hi", "finish_reason": "length"},
    ],
)
def test_a_whole_generate(choice: dict[str, Any]) -> None:
    body = translate_answer(Kind.GENERATE, "m", AT, whole(choice), MEASURED)
    answer = GenerateResponse.model_validate_json(body)
    assert (answer.response, answer.done_reason, answer.eval_count) == ("Hi", "length", 0)


def test_a_whole_infill() -> None:
    engine = {"content": "Hi", "stop": True, "stop_type": "eos", "tokens_predicted": 2}
    body = translate_answer(Kind.GENERATE, "m", AT, json.dumps(engine).encode(), MEASURED)
    answer = GenerateResponse.model_validate_json(body)
    assert (answer.response, answer.done_reason, answer.eval_count) == ("Hi", "stop", 2)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"choices":[]}', b"\xff", b"[" * 9999])
@pytest.mark.parametrize("kind", list(Kind))
def test_an_answer_that_is_none_is_the_engine_s_fault(kind: Kind, body: bytes) -> None:
    with pytest.raises(ApiError, match="m: ") as caught:
        translate_answer(kind, "m", AT, body, MEASURED)
    assert caught.value.status == 502


def test_a_whole_answer_with_broken_arguments_is_the_engine_s_fault() -> None:
    calls = [{"function": {"name": "f", "arguments": "{"}}]
    body = whole({"message": {"tool_calls": calls}, "finish_reason": "tool_calls"})
    with pytest.raises(ApiError, match="arguments of the call to f"):
        translate_answer(Kind.CHAT, "m", AT, body, MEASURED)


def test_embeddings_come_in_the_order_of_their_texts() -> None:
    rows = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [1.0, 0.0]}]
    body = json.dumps({"data": rows, "usage": {"prompt_tokens": 7}}).encode()
    answer = EmbedResponse.model_validate_json(
        translate_answer(Kind.EMBED, "m", AT, body, MEASURED)
    )
    assert answer.embeddings == [[1.0, 0.0], [0.0, 1.0]]
    assert (answer.model, answer.prompt_eval_count) == ("m", 7)
    old = translate_answer(Kind.EMBEDDINGS, "m", AT, body, MEASURED)
    assert EmbeddingsResponse.model_validate_json(old).embedding == [1.0, 0.0]


def test_embeddings_are_cut_and_of_length_one_again() -> None:
    body = json.dumps({"data": [{"embedding": [3.0, 4.0, 12.0]}, {"embedding": [0, 0, 1]}]})
    answer = json.loads(translate_answer(Kind.EMBED, "m", AT, body.encode(), MEASURED, 2))
    assert answer["embeddings"] == [[0.6, 0.8], [0.0, 0.0]]
    assert math.hypot(*answer["embeddings"][0]) == pytest.approx(1)


# -- the rest ------------------------------------------------------------------------------------


def test_a_load_has_its_reason() -> None:
    chat = ChatResponse.model_validate_json(load_answer(Kind.CHAT, "m", AT, unloaded=False))
    assert (chat.done, chat.done_reason, chat.message.content) == (True, "load", "")
    body = load_answer(Kind.GENERATE, "m", AT, unloaded=True)
    assert GenerateResponse.model_validate_json(body).done_reason == "unload"
    body = load_answer(Kind.EMBED, "m", AT, unloaded=False)
    assert EmbedResponse.model_validate_json(body).embeddings == []
    body = load_answer(Kind.EMBEDDINGS, "m", AT, unloaded=False)
    assert EmbeddingsResponse.model_validate_json(body).embedding == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"too long","code":400}}', "too long"),
        (b'{"error":"teapot"}', "teapot"),
        (b'{"message":"no"}', "no"),
        (b'{"detail":[{"loc":1}]}', '[{"loc":1}]'),
        (b'{"a":1}', '{"a":1}'),
        (b"Bad Gateway\n", "Bad Gateway"),
        (b"", "no reason was given"),
        (b"null", "null"),
    ],
)
def test_an_error_of_any_shape_is_one_text(body: bytes, text: str) -> None:
    assert json.loads(translate_error(body)) == {"error": text}


def test_times_are_utc() -> None:
    assert rfc3339(0.5) == "1970-01-01T00:00:00.500000Z"
