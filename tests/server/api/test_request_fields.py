"""The types of the fields that are known: what is taken, and how a mistake is told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.endpoints import CHAT, ENDPOINTS
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.request_body import parse_request
from trio_gateway.server.api.request_fields import FIELDS, INTEGERS, fields_of

MESSAGES = {"messages": [{"role": "user", "content": "Hi"}]}


def endpoint(name: str) -> Endpoint:
    return next(e for e in ENDPOINTS if e.name == name)


def refusal(body: dict[str, Any] | bytes, of: Endpoint = CHAT) -> ApiError:
    data = body if isinstance(body, bytes) else json.dumps({"model": "m", **body}).encode()
    with pytest.raises(ApiError) as caught:
        parse_request(data, of)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": "hot"}, "temperature", "`temperature` is wrong: expected `number | null`"),
        ({"max_tokens": 10**30}, "max_tokens", "expected `integer` <= 9223372036854775807"),
        ({"max_tokens": -3}, "max_tokens", ">= -2"),
        ({"max_tokens": "1000"}, "max_tokens", "got `string`"),
        ({"max_tokens": 1.5}, "max_tokens", "got `number`"),
        ({"stream": "true"}, "stream", "expected `boolean | null`"),
        ({"n": 0}, "n", ">= 1"),
        ({"stop": [1]}, "stop", "`stop[0]` is wrong"),
        ({"messages": [{"role": 1}]}, "messages", "`messages[0].role` is wrong"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages", "messages[0].content"),
        ({"id_slot": "../../x"}, "id_slot", "expected `integer | null`"),
    ],
)
def test_a_wrong_type_is_refused_with_the_name_of_its_field(
    fields: dict[str, Any], param: str, words: str
) -> None:
    error = refusal({**MESSAGES, **fields})
    assert (error.code, error.param) == ("invalid_field", param)
    assert words in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1, "top_p": None, "stop": "x", "seed": -1, "max_tokens": -1},
        {"stop": ["x"], "top_k": 40.0, "logit_bias": [[1, False]], "n": 2},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}, "x"]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        {"a field of this engine only": [{"x": 1.5}]},
        {**dict.fromkeys(FIELDS["chat/completions"].__struct_fields__[1:]), **MESSAGES},
    ],
)
def test_whatever_an_engine_takes_is_taken(fields: dict[str, Any]) -> None:
    parse_request(json.dumps({"model": "m", **MESSAGES, **fields}).encode(), CHAT)


@pytest.mark.parametrize("prompt", ["x", [1, 2], ["x", 1], [[1], ["x"]], {"prompt_string": "x"}])
def test_a_prompt_is_text_or_tokens_or_several_of_them(prompt: Any) -> None:
    parse_request(json.dumps({"model": "m", "prompt": prompt}).encode(), endpoint("completions"))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (b'"x":1e999', "number out of range"),
        (b'"x":-1%b' % (b"0" * 5000), "out of range"),
        (b'"x":{"y":[1e999]}', "number out of range"),
        (b'"x":"\xff"', "not a json object"),
        (b'"x":"\\ud800"', "not a json object"),
        (b'"x":NaN', "not a json object"),
        (b'"x":%b' % (b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
    ],
)
def test_what_no_parser_should_be_given_is_refused_also_in_unknown_fields(
    extra: bytes, words: str
) -> None:
    error = refusal(b'{"model":"m","messages":[{"role":"user","content":"Hi"}],%b}' % extra)
    assert words in error.message.lower()


def test_runs_of_digits_are_looked_for_once() -> None:
    """A run that is one short of too long is not looked at anew from each of its digits."""
    text = b"1" * 307 + b"a"
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"x":"%b"}'

    def cpu_s(data: bytes) -> float:
        begun = time.thread_time()
        parse_request(data, CHAT)
        return time.thread_time() - begun

    runs, plain = body % (text * 10_000), body % (b"a" * 3_080_000)
    assert min(cpu_s(runs) for _ in range(3)) < 10 * min(cpu_s(plain) for _ in range(3))


def test_what_is_not_counted_is_looked_at_just_as_well() -> None:
    error = refusal(
        b'{"model":"m","messages":[{"role":"u","content":"x","y":1e999}]}',
        endpoint("apply-template"),
    )
    assert "out of range" in error.message


WHOLE = [
    (name, field)
    for name, kind in FIELDS.items()
    for field in sorted(INTEGERS & set(kind.__struct_fields__))
    if "int" in kind.__annotations__.get(field, "int").lower()
]
CONTENT = {
    "messages": b'[{"role":"user","content":"Hi"}]', "prompt": b'"x"', "input": b'"x"',
    "content": b'"x"', "query": b'"x"', "input_prefix": b'"x"',
}  # fmt: skip


@pytest.mark.parametrize(("name", "field"), WHOLE)
def test_a_whole_number_is_taken_however_it_is_written_and_passed_on_as_it_came(
    name: str, field: str
) -> None:
    of = endpoint(name)
    content = b"".join(b',"%b":%b' % (n.encode(), CONTENT[n]) for n in of.content[:1])
    for written, value in ((b"4.0", 4), (b"1e2", 100), (b"1E+1", 10), (b"2.50e1", 25), (b"7", 7)):
        body = b'{"model":"m"%b , "%b":%b}' % (content, field.encode(), written)
        request = parse_request(body, of)
        assert request.data == body
        assert bytes(request.members[field]) == written
        assert (request.values[field], type(request.values[field])) == (value, int)
    for written in (b"4.5", b"1e-1", b'"4"', b"[4]", b"1e400"):
        assert refusal(body.replace(b":7}", b":%b}" % written), of).param == field


def test_integers_are_those_of_the_table() -> None:
    assert {"max_tokens", "n_predict", "n", "seed", "dimensions", "top_n", "logprobs"} < INTEGERS
    assert not INTEGERS & {"temperature", "top_p", "top_k", "speed", "tokens", "input", "prompt"}


@pytest.mark.parametrize("name", ["chat/completions", "completions", "completion", "infill"])
def test_a_seed_has_up_to_64_bits(name: str) -> None:
    content = {n: json.loads(CONTENT[n]) for n in endpoint(name).content[:1]}
    for seed in (2**64 - 1, 2**63, 2**32, 0, -1, -(2**63)):
        body = json.dumps({"model": "m", **content, "seed": seed}).encode()
        assert parse_request(body, endpoint(name)).data == body
    for wrong in (2**64, 1e30, -(2**63) - 1):
        error = refusal({**content, "seed": wrong}, endpoint(name))
        assert error.param == "seed"
        assert "18446744073709551615" in error.message or "-9223372036854775808" in error.message


def test_token_ids_to_be_detokenized_may_be_written_so_too() -> None:
    parse_request(b'{"tokens":[1.0,2,3e0]}', endpoint("detokenize"))
    assert refusal({"tokens": [1.5]}, endpoint("detokenize")).param == "tokens"
    parse_request(b'{"content":["a",1.0,2]}', endpoint("tokenize"))
    assert refusal({"content": ["a", 1.5]}, endpoint("tokenize")).param == "content"


def test_every_field_is_one_of_an_endpoint_that_there_is() -> None:
    assert FIELDS.keys() <= {e.name for e in ENDPOINTS}
    for row in ENDPOINTS:
        known = fields_of(row.name).__struct_fields__
        assert not FIELDS.get(row.name) or set(row.content) <= set(known), row.name
