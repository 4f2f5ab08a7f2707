"""What has come of a stream, in whatever pieces; how it is ended, and told as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_gateway.server.api.answer_so_far import AnswerSoFar, ChatSoFar, CompletionSoFar
from trio_gateway.server.api.events_so_far import MessagesSoFar, ResponsesSoFar


def sse(*values: dict[str, Any], end: str = "\n\n") -> bytes:
    return "".join(f"data: {json.dumps(value)}{end}" for value in values).encode()


def chunk(delta: dict[str, Any], index: int = 0, **fields: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": None, **fields}
    return {"id": "c", "created": 1, "model": "m", "choices": [choice]}


def chat(*pieces: bytes, prompt: int | None = 9, with_usage: bool = False) -> ChatSoFar:
    subject = ChatSoFar("m", prompt, with_usage=with_usage)
    for piece in pieces:
        subject.continues(piece)
    return subject


def whole(subject: AnswerSoFar) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(subject.whole())
    return found


def ending(subject: AnswerSoFar) -> list[Any]:
    lines = [line for line in subject.ending().splitlines() if line.startswith(b"data: {")]
    return [json.loads(line[6:]) for line in lines]


def test_events_are_found_in_whatever_pieces_they_come() -> None:
    stream = b": waiting\n\n" + sse(chunk({"content": "A"}), chunk({"content": "é"}))
    for subject in (
        chat(stream),
        chat(*(stream[i : i + 1] for i in range(len(stream)))),
        chat(stream.replace(b"\n", b"\r\n")),
    ):
        assert whole(subject)["choices"][0]["message"]["content"] == "Aé"
        assert subject.tokens == 2
        assert subject.is_between_events
    assert not chat(stream, b"data: {").is_between_events


def test_each_choice_that_has_not_ended_ends() -> None:
    stream = sse(chunk({"content": "A"}), chunk({"content": "B"}, 1, finish_reason="stop"))
    (end,) = ending(chat(stream))
    assert end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    reasons = [choice["finish_reason"] for choice in whole(chat(stream))["choices"]]
    assert reasons == ["length", "stop"]


@pytest.mark.parametrize(
    ("prompt", "with_usage", "usages"),
    [
        (9, True, [{"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}]),
        (9, False, []),
        (None, True, []),
    ],
    ids=["wanted", "not wanted", "not known"],
)
def test_a_stream_has_the_usage_that_is_wanted_if_it_is_known(
    prompt: int | None, with_usage: bool, usages: list[Any]
) -> None:
    subject = chat(sse(chunk({"content": "A"})), prompt=prompt, with_usage=with_usage)
    assert [event["usage"] for event in ending(subject) if "usage" in event] == usages


def test_calls_of_tools_and_logprobs_are_put_together() -> None:
    start = {"index": 1, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}
    first = {
        "index": 0,
        "id": "s",
        "type": "function",
        "function": {"name": "e", "arguments": "{}"},
    }
    more = [{"index": 1, "function": {"arguments": part}} for part in ('{"a"', ":1}")]
    stream = sse(
        *(chunk({"tool_calls": [call]}) for call in (first, start, *more)),
        chunk({"content": "x"}, logprobs={"content": [{"token": "x"}]}),
        chunk({"content": "y"}, logprobs={"content": [{"token": "y"}]}),
    )
    (choice,) = whole(chat(stream))["choices"]
    arguments = [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]
    assert arguments == ["{}", '{"a":1}']
    assert choice["logprobs"] == {"content": [{"token": "x"}, {"token": "y"}]}


def test_an_answer_that_has_not_begun_ends_as_well() -> None:
    assert ending(chat())[0]["choices"][0]["finish_reason"] == "length"
    assert ending(CompletionSoFar("m", 9, with_usage=False))[0]["object"] == "text_completion"
    kinds = [event["type"] for event in ending(MessagesSoFar("m", 9))]
    assert kinds == ["message_start", "message_delta", "message_stop"]
    kinds = [event["type"] for event in ending(ResponsesSoFar("m", 9))]
    assert kinds == ["response.created", "response.incomplete"]


def test_of_messages_a_call_that_was_cut_is_left_out_and_a_whole_one_is_not() -> None:
    subject = MessagesSoFar("m", 9)
    for index, text in enumerate(('{"a":1}', '{"a')):
        tool = {"type": "tool_use", "id": f"t{index}", "name": "f", "input": {}}
        delta = {"type": "input_json_delta", "partial_json": text}
        subject.continues(
            sse(
                {"type": "content_block_start", "index": index, "content_block": tool},
                {"type": "content_block_delta", "index": index, "delta": delta},
            )
        )
        if not index:
            subject.continues(sse({"type": "content_block_stop", "index": index}))
    found = whole(subject)
    assert [block["input"] for block in found["content"]] == [{"a": 1}]
    assert found["stop_reason"] == "max_tokens"
    assert ending(subject)[1] == {"type": "content_block_stop", "index": 1}


def test_of_responses_the_numbers_of_events_go_on_and_cut_arguments_are_not_done() -> None:
    subject = ResponsesSoFar("m", 9)
    call = {"type": "function_call", "id": "f1", "name": "f", "arguments": ""}
    subject.continues(
        sse(
            {"type": "response.created", "sequence_number": 0, "response": {"id": "r"}},
            {"type": "response.output_item.added", "sequence_number": 1, "item": call},
            {
                "type": "response.function_call_arguments.delta",
                "sequence_number": 2,
                "item_id": "f1",
                "delta": '{"a',
            },
        )
    )
    done, incomplete = ending(subject)
    assert (done["type"], done["sequence_number"]) == ("response.output_item.done", 3)
    assert (done["item"]["status"], done["item"]["arguments"]) == ("incomplete", '{"a')
    assert incomplete["sequence_number"] == 4


def test_a_response_that_is_complete_is_told_as_the_engine_told_it() -> None:
    subject = ResponsesSoFar("m", 9)
    response = {"id": "r", "status": "completed", "output": [], "usage": {"input_tokens": 3}}
    subject.continues(sse({"type": "response.completed", "response": response}))
    assert response.items() <= whole(subject).items()
