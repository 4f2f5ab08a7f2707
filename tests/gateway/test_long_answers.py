"""`longest_answer`: what a client sees of an answer that ends because others wait for its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, DONE, Clock, chat, header
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.server.api.endpoints import ENDPOINTS

LIMIT_S, EACH_S = 60.0, 1.0
WHY = "the answer was ended after 60 s (longest_answer): others wait for its place"
Script = Callable[[], Iterable[bytes | float]]


def event(value: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


def endlessly(start: bytes, piece: bytes) -> Script:
    def script() -> Iterable[bytes | float]:
        yield start + piece
        while True:
            yield EACH_S
            yield piece

    return script


def chat_chunk(delta: dict[str, Any]) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return event({"id": "c1", "created": 7, "model": "file.gguf", "choices": choices})


CHATS = endlessly(chat_chunk({"role": "assistant", "content": None}), chat_chunk({"content": "ab"}))
COMPLETIONS = endlessly(b"", event({"id": "c1", "choices": [{"index": 0, "text": "ab"}]}))
NATIVE = endlessly(b"", event({"index": 0, "content": "ab", "tokens": [5], "stop": False}))
BLOCK = {"type": "text", "text": ""}
MESSAGES = endlessly(
    event({"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 9}}})
    + event({"type": "content_block_start", "index": 0, "content_block": BLOCK}),
    event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ab"}},
        "content_block_delta",
    ),
)  # fmt: skip
ITEM = {"type": "message", "id": "i1", "role": "assistant", "status": "in_progress", "content": []}
PART = {"type": "output_text", "text": ""}
RESPONSES = endlessly(
    event({"type": "response.created", "response": {"id": "r1", "status": "in_progress"}})
    + event({"type": "response.output_item.added", "item": ITEM})
    + event({"type": "response.content_part.added", "item_id": "i1", "part": PART}),
    event({"type": "response.output_text.delta", "item_id": "i1", "delta": "ab"}),
)
TEXT = "Hi"
MESSAGE = [{"role": "user", "content": TEXT}]
APIS: dict[str, tuple[str, dict[str, Any], Script]] = {
    "chat": (CHAT, {"messages": MESSAGE}, CHATS),
    "completions": ("/v1/completions", {"prompt": TEXT}, COMPLETIONS),
    "completion": ("/completion", {"prompt": TEXT}, NATIVE),
    "infill": ("/infill", {"input_prefix": TEXT, "input_suffix": TEXT}, NATIVE),
    "messages": ("/v1/messages", {"messages": MESSAGE, "max_tokens": 2000}, MESSAGES),
    "responses": ("/v1/responses", {"input": TEXT}, RESPONSES),
    "ollama chat": ("/api/chat", {"messages": MESSAGE}, CHATS),
    "ollama generate": ("/api/generate", {"prompt": TEXT}, CHATS),
}


async def ended(
    stack: Stack, script: Script, path: str, fields: dict[str, Any]
) -> tuple[bytes, str]:
    """An answer, while another request comes 10 s after it; and its content type."""
    answers: list[tuple[bytes, str]] = []

    async def ask() -> None:
        body = json.dumps({"model": "m", **fields}).encode()
        response = await stack.post(path, body)
        assert response.status == 200, response.content
        answers.append((response.content, header(response, "content-type")))

    stack.engines.scripts = [script(), [b'{"choices":[]}']]
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(10)
        assert (await stack.post(CHAT, chat())).status == 200
        assert trio.current_time() - begun == pytest.approx(LIMIT_S, abs=2.5)
    return answers[0]


def stack_of(**fields: Any) -> Any:
    served = frozenset(row.name for row in ENDPOINTS)
    one = model("m", variant(parallel=1), endpoints=served, **fields)
    return running_stack(config(one))


def events_of(answer: bytes) -> list[dict[str, Any]]:
    lines = [line for line in answer.splitlines() if line.startswith(b"data: {")]
    return [json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize("api", APIS)
async def test_a_stream_ends_as_if_it_had_come_to_its_maximum(
    api: str, autojump_clock: Clock
) -> None:
    path, fields, script = APIS[api]
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        answer, _ = await ended(stack, script, path, {"stream": True, **fields})
    if api.startswith("ollama"):
        last = json.loads(answer.splitlines()[-1])
        assert (last["done"], last["done_reason"]) == (True, "length")
        return
    assert f": {WHY}\n\n".encode() in answer
    *_, last = events_of(answer)
    match api:
        case "chat":
            assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
            assert (last["id"], last["object"]) == ("c1", "chat.completion.chunk")
            assert answer.endswith(DONE)
        case "completions":
            assert last["choices"][0]["finish_reason"] == "length"
            assert answer.endswith(DONE)
        case "completion" | "infill":
            assert (last["stop"], last["stop_type"]) == (True, "limit")
        case "messages":
            *_, stop, delta, over = events_of(answer)
            assert stop == {"type": "content_block_stop", "index": 0}
            assert delta["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
            assert over == {"type": "message_stop"}
            assert answer.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        case "responses":
            *_, text, part, item, _ = events_of(answer)
            assert text["type"] == "response.output_text.done"
            assert part["type"] == "response.content_part.done"
            assert (item["type"], item["item"]["status"]) == (
                "response.output_item.done",
                "incomplete",
            )
            assert last["type"] == "response.incomplete"
            assert last["response"]["status"] == "incomplete"
            assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
            assert last["response"]["output"][0]["content"][0]["text"] == text["text"] != ""


@pytest.mark.parametrize("api", APIS)
async def test_an_answer_that_is_not_streamed_has_what_came_until_then(
    api: str, autojump_clock: Clock
) -> None:
    path, fields, script = APIS[api]
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        answer, kind = await ended(stack, script, path, {"stream": False, **fields})
        assert b'"stream":true' in stack.engines.requests[0][2].replace(b" ", b"")
    found = json.loads(answer)
    assert kind.startswith("application/json")
    text = "ab" * 59
    match api:
        case "chat":
            (choice,) = found["choices"]
            assert choice["message"]["content"].startswith(text)
            assert choice["finish_reason"] == "length"
            assert found["object"] == "chat.completion"
            assert found["model"] == "m"
            assert "usage" not in found  # its prompt was not counted
        case "completions":
            assert found["choices"][0]["text"].startswith(text)
            assert found["choices"][0]["finish_reason"] == "length"
        case "completion" | "infill":
            assert found["content"].startswith(text)
            assert (found["stop"], found["stop_type"]) == (True, "limit")
        case "messages":
            assert found["content"][0]["text"].startswith(text)
            assert found["stop_reason"] == "max_tokens"
        case "responses":
            assert found["status"] == "incomplete"
            assert found["output"][0]["content"][0]["text"].startswith(text)
        case "ollama chat":
            assert found["message"]["content"].startswith(text)
            assert (found["done"], found["done_reason"]) == (True, "length")
        case _:
            assert found["response"].startswith(text)
            assert (found["done"], found["done_reason"]) == (True, "length")


async def test_while_nobody_waits_an_answer_goes_on(autojump_clock: Clock) -> None:
    pieces = [chat_chunk({"content": "ab"}), 30.0] * 20
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        stack.engines.scripts = [[*pieces, DONE]]
        response = await stack.post(CHAT, chat(stream=True))
        assert response.content.count(b'"ab"') == 20
        assert b"longest_answer" not in response.content


async def test_an_engine_that_is_silent_is_not_waited_for(autojump_clock: Clock) -> None:
    """In the middle of its answer, and while it reads the prompt."""
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        silent: list[bytes | float] = [chat_chunk({"content": "ab"}), 10_000.0]
        answer, _ = await ended(stack, lambda: silent, CHAT, json.loads(chat(stream=True)))
        assert b'"ab"' in answer
        assert answer.endswith(DONE)
        answer, _ = await ended(stack, lambda: [10_000.0], CHAT, json.loads(chat(stream=True)))
        assert events_of(answer)[-1]["choices"][0]["finish_reason"] == "length"
        answer, _ = await ended(stack, lambda: [10_000.0], CHAT, json.loads(chat()))
        assert json.loads(answer)["choices"][0]["finish_reason"] == "length"


async def test_what_has_come_of_a_tool_call_is_not_told_as_complete(autojump_clock: Clock) -> None:
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a'}}
    script = endlessly(chat_chunk({"tool_calls": [call]}), chat_chunk({"tool_calls": [more]}))
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        answer, _ = await ended(stack, script, CHAT, json.loads(chat()))
        (choice,) = json.loads(answer)["choices"]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["tool_calls"][0]["function"]["name"] == "f"
        answer, _ = await ended(stack, script, "/api/chat", {"messages": MESSAGE, "stream": False})
        assert "tool_calls" not in json.loads(answer)["message"]


async def test_an_answer_that_ends_by_itself_is_put_together_as_the_engine_would(
    autojump_clock: Clock,
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    last = {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    pieces = [
        chat_chunk({"role": "assistant", "content": None}),
        chat_chunk({"reasoning_content": "h"}),
        chat_chunk({"reasoning_content": "m"}),
        chat_chunk({"content": "Yes"}),
        event(last),
        event({"choices": [], "usage": usage}) + DONE,
    ]
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        stack.engines.scripts = [pieces]
        found = json.loads((await stack.post(CHAT, chat())).content)
    message = {"role": "assistant", "content": "Yes", "reasoning_content": "hm"}
    assert found["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert found["usage"] == usage


async def test_an_error_in_the_middle_is_an_error(autojump_clock: Clock) -> None:
    error = {"code": 500, "message": "out of memory", "type": "server_error"}
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        stack.engines.scripts = [[chat_chunk({"content": "ab"}), event({"error": error})]]
        response = await stack.post(CHAT, chat())
        assert response.status == 500
        assert b"out of memory" in response.content


NATIVE_END = {
    "content": "",
    "tokens": [],
    "stop": True,
    "stop_type": "limit",
    "tokens_predicted": 2,
}


def native(**more: Any) -> Script:
    def script() -> Iterable[bytes | float]:
        for token in (5, 6):
            seen = [{"id": token, "token": "ab", "logprob": -1.0}]
            said = {"content": "ab", "tokens": [token], "stop": False}
            yield event({**said, "completion_probabilities": seen} if "n_probs" in more else said)
        yield event(NATIVE_END)

    return script


async def test_llama_cpp_s_own_answer_has_the_fields_that_it_has_without_a_limit(
    autojump_clock: Clock,
) -> None:
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        answers = []
        for fields in ({}, {"return_tokens": True}, {"n_probs": 1}):
            stack.engines.scripts = [native(**fields)()]
            body = json.dumps({"model": "m", "prompt": TEXT, **fields}).encode()
            stack.engines.more_headers = [(b"content-type", b"text/event-stream")]
            answers.append(json.loads((await stack.post("/completion", body)).content))
    plain, with_ids, with_probabilities = answers
    assert (plain["content"], plain["tokens"]) == ("abab", [])
    assert with_ids["tokens"] == [5, 6]
    assert [seen["id"] for seen in with_probabilities["completion_probabilities"]] == [5, 6]


@pytest.mark.parametrize(
    "fields",
    [{"response_fields": ["content"]}, {"prompt": ["a", "b"]}, {"n_cmpl": 2}],
    ids=lambda fields: next(iter(fields)),
)
async def test_what_a_stream_does_not_tell_is_not_asked_for_as_one(
    autojump_clock: Clock, fields: dict[str, Any]
) -> None:
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        stack.engines.scripts = [[b'{"content":"ab"}']]
        body = json.dumps({"model": "m", "prompt": TEXT, "n_predict": 2, **fields}).encode()
        answer = await stack.post("/completion", body)
        assert (answer.status, answer.content) == (200, b'{"content":"ab"}')
        ((_, _, sent),) = stack.engines.requests
        assert b'"stream"' not in sent


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 10**9}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": None}]}}]},
        {"choices": ["text"]},
        {"choices": [{"index": 0, "delta": {"content": {"a": 1}}}, {"index": [], "delta": {}}]},
    ],
)
async def test_an_event_that_cannot_be_read_is_passed_on_and_not_put_together(
    autojump_clock: Clock, odd: dict[str, Any]
) -> None:
    script = [event(odd), DONE]
    async with stack_of(longest_answer_s=LIMIT_S) as stack:
        stack.engines.scripts = [[*script], [*script]]
        streamed = await stack.post(CHAT, chat(stream=True))
        assert streamed.content.replace(b" ", b"") == b"".join(script).replace(b" ", b"")
        stack.engines.more_headers = [(b"content-type", b"text/event-stream")]
        whole = await stack.post(CHAT, chat())
        assert whole.status == 502
        assert "an event that is not as its API has them" in whole.content.decode()
