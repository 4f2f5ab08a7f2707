"""What is read of a request's body, and what may be changed in it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from trio_gateway.config.schema import RewriteConfig
from trio_gateway.rawjson import members
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.endpoints import ANTHROPIC, CHAT, ENDPOINTS, LLAMACPP
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.request_body import parse_request, with_answer_limit

COMPLETION = next(e for e in LLAMACPP if e.name == "completion")
CHAT_BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]%b}'


def refusal(data: bytes, endpoint: Endpoint = CHAT) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_request(data, endpoint)
    assert caught.value.status == 400
    return caught.value


def test_the_model_and_the_wish_for_a_stream_are_read() -> None:
    body = parse_request(CHAT_BODY % b',"stream":true', CHAT)
    assert (body.model, body.wants_stream) == ("m", True)
    assert not parse_request(CHAT_BODY % b"", CHAT).wants_stream


def test_a_body_that_is_too_deep_only_in_the_terms_it_is_counted_in_is_refused() -> None:
    """A tool of Anthropic's is an object deeper as one of OpenAI's. How deep is too deep depends on
    the Python: 3.13 may take all of these."""
    tools = b',"tools":[{"name":"t","input_schema":{"a":%b}}]'

    def refusal(depth: int) -> str | None:
        nested = b"[" * depth + b"]" * depth
        try:
            parse_request(CHAT_BODY % (tools % nested), ANTHROPIC[0]).counted(ANTHROPIC[0])
        except ApiError as error:
            return error.code
        return None

    codes = [refusal(depth) for depth in (*range(900, 1010), 5_000, 20_000)]
    taken = codes.count(None)
    assert codes == [None] * taken + ["invalid_json"] * (len(codes) - taken)


@pytest.mark.parametrize(
    "data",
    [
        b'{"model":"m","messages":[{}],"model":"n"}',
        b'{"model":"m","messages":[{}],"x":1 ,"model":"n"}',
        b'{"model": "m", "messages": [{}], "model": "n"}',
        b'{"model":"m","messages":[{}],"mod\\u0065l":"n"}',
        b'{"messages":[{}],"model":"m","a":1,"a":1}',
    ],
)
def test_a_field_that_appears_twice_is_refused_by_name(data: bytes) -> None:
    error = refusal(data)
    assert error.code == "invalid_json"
    assert "appears twice" in error.message


@pytest.mark.parametrize(
    "data",
    [
        b' {"model" : "m",\n "messages":\t[{}]}\n',
        b'{"model": "m", "messages": [{"a": 1}]}',
        b'{"model":"m","messages":[{}],"\\u00e9":1}',
    ],
)
def test_however_it_is_written_a_body_without_such_is_taken(data: bytes) -> None:
    assert parse_request(data, CHAT).model == "m"


def test_only_the_native_endpoints_do_without_a_name() -> None:
    assert parse_request(b'{"prompt":"Hi"}', COMPLETION).model is None
    assert refusal(b'{"messages":[{}]}').code == "missing_model"
    assert refusal(b'{"prompt":"Hi","model":3}', COMPLETION).code == "missing_model"
    assert refusal(b'{"prompt":"Hi","model":""}', COMPLETION).code == "missing_model"


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("chat/completions", '"messages":[]', "`messages` is empty; expected a non-empty array of"),
        ("chat/completions", '"messages":{}', "`messages` is wrong; expected a non-empty array of"),
        ("chat/completions", '"x":1', "`messages` is missing; expected a non-empty array of"),
        ("messages", '"messages":null', "`messages` is missing; expected"),
        ("completions", '"prompt":[]', "`prompt` is empty; expected a string or a non-empty array"),
        ("completions", '"prompt":{}', "`prompt` is wrong; expected a string or a non-empty array"),
        ("embeddings", '"input":[]', "`input` is empty; expected a string or a non-empty array"),
        ("embedding", '"content":[]', "`content` is empty; expected a string or a non-empty"),
        ("embedding", '"x":1', "`content` is missing; expected a string or a non-empty array"),
        ("rerank", '"query":[]', "`query` is wrong; expected a string"),
        ("infill", '"input_suffix":[]', "`input_suffix` is wrong; expected a string"),
        ("audio/speech", '"input":[]', "`input` is wrong; expected a string"),
        ("images/generations", '"prompt":["x"]', "`prompt` is wrong; expected a string"),
        ("detokenize", '"tokens":"x"', "`tokens` is wrong; expected an array of token ids"),
        ("tokenize", '"content":{}', "`content` is wrong; expected a string or an array"),
        (
            "responses",
            '"input":[]',
            "`input` is empty; expected a string or a non-empty array; with",
        ),
        ("responses", '"input":[],"instructions":""', "`input` is empty; expected"),
        ("responses", '"input":{},"instructions":"x"', "`input` is wrong; expected"),
        ("responses", '"instructions":"x"', "`input` is missing; expected"),
        ("responses/input_tokens", '"input":[]', "`input` is empty; expected"),
    ],
)
def test_what_a_request_is_about_is_missing_empty_or_wrong(
    name: str, fields: str, words: str
) -> None:
    row = next(row for row in ENDPOINTS if row.name == name)
    error = refusal(b'{"model":"m",%b}' % fields.encode(), row)
    assert error.message.startswith(words)
    assert error.code == f"missing_{error.param}"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("responses", '"input":[],"instructions":"Be brief."'),
        ("responses", '"input":[],"previous_response_id":"resp_1"'),
        ("responses/input_tokens", '"input":[],"instructions":"Be brief."'),
        ("responses", '"input":""'),
        ("tokenize", '"content":[]'),
        ("detokenize", '"tokens":[]'),
        ("completions", '"prompt":""'),
        ("embeddings", '"input":[""]'),
    ],
)
def test_an_empty_array_is_enough_where_the_engine_has_something_to_go_by(
    name: str, fields: str
) -> None:
    row = next(row for row in ENDPOINTS if row.name == name)
    parse_request(b'{"model":"m",%b}' % fields.encode(), row)


def test_instructions_alone_are_counted() -> None:
    row = next(row for row in ENDPOINTS if row.name == "responses")
    body = b'{"model":"m","input":[],"instructions":"Be brief.","max_output_tokens":9}'
    form = parse_request(body, row).counted(row)
    assert (form.kind, form.answer) == ("chat/completions", 9)
    assert form.fields.messages == [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize("content", [b"3", b"null", b"[]", b"{}", b'"text"', b"[3]"])
def test_messages_are_an_array_of_objects(content: bytes) -> None:
    error = refusal(b'{"model":"m","messages":%b}' % content)
    assert (error.code, error.param) == ("missing_messages", "messages")


def rewrite(body: dict[str, Any], **how: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi"}]
    data = json.dumps({**body, "messages": messages}).encode()
    made = parse_request(data, CHAT).rewritten(RewriteConfig(**how))
    result: dict[str, Any] = json.loads(made.data)
    assert made.values == result
    assert {name: json.loads(bytes(raw)) for name, raw in made.members.items()} == result
    assert result.pop("messages") == messages
    return result


def test_fields_are_set_defaulted_and_removed() -> None:
    body = {"model": "m", "temperature": 1, "top_p": None, "user": "u", "odd": 1.50}
    result = rewrite(
        body,
        set={"temperature": b"0.2"},
        default={"top_p": b"0.9", "odd": b"2", "seed": b"7"},
        remove=("user", "nothing"),
    )
    assert result == {"model": "m", "temperature": 0.2, "top_p": 0.9, "odd": 1.5, "seed": 7}


def test_other_fields_keep_their_very_bytes() -> None:
    body = parse_request(CHAT_BODY % b',"x":1.50,"y":"\\u00e9"', CHAT)
    made = body.rewritten(RewriteConfig(set={"a": b"1"}))
    assert made.data == CHAT_BODY % b',"x":1.50,"y":"\\u00e9","a":1'


def test_every_spelling_of_the_answers_maximum_is_lowered() -> None:
    body = b'{"max_tokens":100,"max_output_tokens":5,"n_predict":20,"x": [1, 2]}'
    made = msgspec.json.encode(with_answer_limit(members(body), 10))
    assert made == b'{"max_tokens":10,"max_output_tokens":5,"n_predict":10,"x":[1, 2]}'
