"""Ollama's requests, and the OpenAI requests that they stand for."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama._types import ChatRequest, EmbedRequest, GenerateRequest
from ollama._utils import convert_function_to_tool

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.ollama.options import FOREVER_S, keep_alive_s
from trio_gateway.server.ollama.request import Kind, OllamaCall, read_call, read_model_name

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"


def call(kind: Kind, **fields: Any) -> OllamaCall:
    return read_call(kind, json.dumps({"model": "m", **fields}).encode())


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The fields of the OpenAI request."""
    return call(Kind.CHAT, messages=messages or (user("Hi"),), **fields).fields


def user(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **fields}


def refusal(kind: Kind, body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        read_call(kind, body)
    assert caught.value.status == 400
    return caught.value.message


# -- chat ----------------------------------------------------------------------------------------


def test_a_chat_is_streamed_unless_told_otherwise_and_asks_for_its_numbers() -> None:
    streamed = call(Kind.CHAT, messages=[user("Hi")])
    assert (streamed.endpoint, streamed.stream, streamed.only_loads) == (
        "chat/completions", True, False,
    )  # fmt: skip
    assert streamed.request("real-name", 4096) == {
        "model": "real-name",
        "messages": [user("Hi")],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    whole = call(Kind.CHAT, messages=[user("Hi")], stream=False)
    assert not whole.stream
    assert whole.fields == {"messages": [user("Hi")]}


def test_what_the_ollama_client_sends_is_understood() -> None:
    def add(a: int, b: int) -> int:
        """Add.

        Args:
            a: one
            b: other
        """
        return a + b

    request = ChatRequest(
        model="m",
        messages=[{"role": "user", "content": "1+1?"}],
        tools=[convert_function_to_tool(add)],
        stream=True,
        think="low",
        keep_alive=-1,
        options={"num_ctx": 8192, "temperature": 0.5},
        format="json",
        logprobs=True,
        top_logprobs=3,
    )
    read = read_call(Kind.CHAT, request.model_dump_json(exclude_none=True).encode())
    assert (read.num_ctx, read.keep_alive_s, read.stream) == (8192, FOREVER_S, True)
    assert read.fields["tools"][0]["function"]["name"] == "add"
    assert read.fields["tools"][0]["function"]["parameters"]["required"] == ["a", "b"]
    expected = {
        "reasoning_effort": "low", "temperature": 0.5, "logprobs": True, "top_logprobs": 3,
        "response_format": {"type": "json_object"},
    }  # fmt: skip
    assert expected.items() <= read.fields.items()


def test_tool_calls_get_ids_that_their_answers_name() -> None:
    def asked(name: str, **arguments: Any) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": arguments}}

    messages = chat(
        user("weather?"),
        {
            "role": "assistant", "content": "", "thinking": "hm",
            "tool_calls": [asked("get", city="Graz"), asked("see", x=1), asked("get", city="Wien")],
        },
        {"role": "tool", "tool_name": "see", "content": "x"},
        {"role": "tool", "tool_name": "get", "content": "Graz: 3"},
        {"role": "tool", "content": "Wien: 4"},
        {"role": "tool", "tool_name": "get", "content": "nobody asked"},
    )["messages"]  # fmt: skip
    calls = messages[1]["tool_calls"]
    assert [json.loads(c["function"]["arguments"]) for c in calls] == [
        {"city": "Graz"}, {"x": 1}, {"city": "Wien"},
    ]  # fmt: skip
    ids = [c["id"] for c in calls]
    # Mistral's templates refuse ids that are not nine letters and digits.
    assert all(len(i) == 9 and i.isalnum() for i in ids)
    assert [m["tool_call_id"] for m in messages[2:5]] == [ids[1], ids[0], ids[2]]
    assert messages[5]["tool_call_id"] not in ids
    assert messages[2]["name"] == "see"
    assert messages[1]["reasoning_content"] == "hm"


def test_ids_that_a_client_sends_are_kept_and_never_made_up_a_second_time() -> None:
    given = [{"id": "call00000", "function": {"name": "f", "arguments": {}}}]
    other = [{"function": {"name": "f"}}]
    messages = chat(
        {"role": "assistant", "tool_calls": other},
        {"role": "assistant", "tool_calls": given},
        {"role": "tool", "tool_call_id": "call00000", "content": "1"},
        {"role": "tool", "tool_name": "f", "content": "2"},
    )["messages"]
    first, second = (m["tool_calls"][0] for m in messages[:2])
    assert (first["id"], second["id"]) == ("call00001", "call00000")
    assert first["function"]["arguments"] == "{}"
    assert [m["tool_call_id"] for m in messages[2:]] == ["call00000", "call00001"]


def test_a_conversation_that_grows_keeps_the_ids_of_its_start() -> None:
    turn = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    answer = {"role": "tool", "content": "1"}
    short = chat(user("a"), turn, answer)["messages"]
    assert chat(user("a"), turn, answer, turn, answer, user("b"))["messages"][:3] == short


def test_images_become_data_urls_before_the_text() -> None:
    content = chat(user("what?", images=[PNG, "/9j/" + "A" * 40]))["messages"][0]["content"]
    assert content == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/" + "A" * 40}},
        {"type": "text", "text": "what?"},
    ]


@pytest.mark.parametrize(
    "image",
    ["http://localhost/secret.png", "/etc/passwd", "file.png", "aGVsbG8gd29ybGQsIGhlbGxv", "", "ä"],
)
def test_what_is_no_image_is_refused(image: str) -> None:
    body = {"model": "m", "messages": [user("a"), user("b", images=[image])]}
    assert "messages[1].images[0]" in refusal(Kind.CHAT, json.dumps(body).encode())


def test_an_image_that_is_a_data_url_already_stays() -> None:
    url = f"data:image/png;base64,{PNG}"
    content = chat(user("", images=[url]))["messages"][0]["content"]
    assert content == [{"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (True, {"chat_template_kwargs": {"enable_thinking": True}}),
        (False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("high", {"reasoning_effort": "high"}),
        (None, {}),
    ],
)
def test_think(think: object, expected: dict[str, Any]) -> None:
    fields = chat(think=think, stream=False)
    del fields["messages"]
    assert fields == expected


def test_a_schema_is_a_response_format() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert chat(format=schema)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }
    raw = call(Kind.GENERATE, prompt="x", raw=True, format="json").fields
    assert raw["json_schema"] == {"type": "object"}


# -- options -------------------------------------------------------------------------------------


def test_options_become_fields_and_those_of_a_start_are_left_to_the_configuration() -> None:
    options = {
        "temperature": 0.1, "top_p": 0.2, "top_k": 3.0, "min_p": 0.4, "seed": 5, "stop": ["a"],
        "repeat_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0, "typical_p": None,
        "num_predict": 7, "num_ctx": 2048, "num_gpu": 99, "num_thread": 4, "tfs_z": 1, "new": {},
    }  # fmt: skip
    read = call(Kind.CHAT, messages=[user("x")], options=options, stream=False)
    assert read.num_ctx == 2048
    fields = {k: v for k, v in read.fields.items() if k != "messages"}
    assert fields == {
        "temperature": 0.1, "top_p": 0.2, "top_k": 3, "min_p": 0.4, "seed": 5, "stop": ["a"],
        "repeat_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0, "max_tokens": 7,
    }  # fmt: skip


@pytest.mark.parametrize("limit", [-1, -2])
def test_an_answer_without_end_has_no_maximum(limit: int) -> None:
    assert "max_tokens" not in chat(options={"num_predict": limit})


def test_a_limit_of_more_digits_than_an_engine_reads_is_the_most_that_it_reads() -> None:
    assert chat(options={"num_predict": 2**64})["max_tokens"] == 2**31 - 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", "hot", "a number"),
        ("temperature", True, "a number"),
        ("num_predict", 1.5, "an integer"),
        ("num_ctx", "8192", "an integer"),
        ("seed", [1], "an integer"),
        ("stop", [1], "an array of strings"),
    ],
)
def test_an_option_of_the_wrong_type_is_named(name: str, value: object, expected: str) -> None:
    body = {"model": "m", "messages": [user("x")], "options": {name: value}}
    message = refusal(Kind.CHAT, json.dumps(body).encode())
    assert message == f"option `{name}` must be {expected}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None), ("", None), (0, 0), ("0", 0), ("0s", 0), (300, 300), ("300", 300), (1.5, 1.5),
        ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("-1", FOREVER_S), (-1, FOREVER_S),
        ("-1m", FOREVER_S), ("500ms", 0.5), ("24h", 86400), ("+5s", 5), (" 10s ", 10),
    ],
)  # fmt: skip
def test_keep_alive(value: object, expected: float | None) -> None:
    assert keep_alive_s(value) == expected


@pytest.mark.parametrize(
    "value",
    ["five", "5 m", "m", "1d", "5m5", "--1s", True, [], {}, "9" * 5000, 10**400, "1\x00s"],
)
def test_a_keep_alive_that_is_none(value: object) -> None:
    with pytest.raises(ApiError, match="keep_alive") as caught:
        keep_alive_s(value)
    assert len(caught.value.message) < 200


@given(st.one_of(st.text(), st.floats(allow_nan=False), st.integers()))
def test_any_keep_alive_is_a_time_or_refused(value: float | str) -> None:
    try:
        seconds = keep_alive_s(value)
    except ApiError:
        return
    assert seconds is None or (seconds >= 0 and not math.isnan(seconds))


# -- generate ------------------------------------------------------------------------------------


def test_a_prompt_is_a_chat_of_one_message() -> None:
    read = call(Kind.GENERATE, prompt="Hi", system="Be brief", images=[PNG], context=[1, 2])
    assert read.endpoint == "chat/completions"
    system, message = read.fields["messages"]
    assert system == {"role": "system", "content": "Be brief"}
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    request = GenerateRequest(model="m", prompt="Hi", stream=False, think=True)
    read = read_call(Kind.GENERATE, request.model_dump_json(exclude_none=True).encode())
    assert read.fields == {
        "messages": [user("Hi")],
        "chat_template_kwargs": {"enable_thinking": True},
    }


def test_a_raw_prompt_is_completed_as_it_is() -> None:
    read = call(Kind.GENERATE, prompt="<s>Hi", raw=True, options={"num_predict": 5}, think=True)
    assert read.endpoint == "completions"
    assert read.fields == {
        "prompt": "<s>Hi", "max_tokens": 5, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_a_suffix_asks_for_the_middle() -> None:
    options = {"num_predict": 5}
    read = call(Kind.GENERATE, prompt="def f(", suffix="return", stream=False, options=options)
    assert read.endpoint == "infill"
    assert read.fields == {"input_prefix": "def f(", "input_suffix": "return", "n_predict": 5}


@pytest.mark.parametrize(
    "fields",
    [
        {"template": "{{ .Prompt }}"},
        {"raw": True, "system": "x"},
        {"raw": True, "images": [PNG]},
        {"suffix": "x", "images": [PNG]},
        {"think": "much"},
        {"think": 1},
        {"format": 5},
        {"format": "yaml"},
        {"top_logprobs": 21},
    ],
)
def test_what_cannot_be_had_is_refused_with_its_name(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "prompt": "Hi", **fields}).encode()
    assert f"`{next(iter(fields))}`" in refusal(Kind.GENERATE, body)


# -- loading, embedding --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.CHAT, {}),
        (Kind.CHAT, {"messages": []}),
        (Kind.GENERATE, {}),
        (Kind.GENERATE, {"prompt": ""}),
        (Kind.EMBED, {"input": []}),
        (Kind.EMBED, {"input": ""}),
        (Kind.EMBEDDINGS, {}),
    ],
)
def test_a_request_without_content_only_loads(kind: Kind, fields: dict[str, Any]) -> None:
    load = call(kind, keep_alive="10m", **fields)
    assert (load.only_loads, load.unloads, load.keep_alive_s) == (True, False, 600)
    assert call(kind, keep_alive=0, **fields).unloads


def test_a_request_with_content_does_not_only_unload() -> None:
    assert not call(Kind.CHAT, messages=[user("x")], keep_alive=0).unloads


def test_texts_to_embed() -> None:
    request = EmbedRequest(model="m", input=["a", "b"], dimensions=64, truncate=True)
    read = read_call(Kind.EMBED, request.model_dump_json(exclude_none=True).encode())
    assert (read.endpoint, read.stream, read.dimensions) == ("embeddings", False, 64)
    assert read.fields == {"input": ["a", "b"]}
    assert call(Kind.EMBEDDINGS, prompt="a").fields == {"input": "a"}
    body = b'{"model":"m","input":"a","dimensions":0}'
    assert "dimensions" in refusal(Kind.EMBED, body)


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b'{"messages": []}', b'{"model": ""}', b'{"model": 5}', b"\xff",
        b'{"model": "m", "options": []}', b'{"model": "m", "keep_alive": {}}',
        b'{"model": "m", "options": {"seed": NaN}}',
    ],
)  # fmt: skip
def test_a_body_that_is_none(kind: Kind, body: bytes) -> None:
    assert refusal(kind, body)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"messages": "Hi"}, "$.messages"),
        ({"messages": [{"content": "x"}]}, "$.messages[0]"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "$.messages[0].content"),
        ({"messages": [user("x", images="x")]}, "$.messages[0].images"),
        ({"messages": [user("x", tool_calls=[{"function": {"name": 1}}])]}, "tool_calls[0]"),
        (
            {"messages": [user("x", tool_calls=[{"function": {"name": "f", "arguments": "{}"}}])]},
            "tool_calls[0].function.arguments",
        ),
        ({"messages": [], "stream": "yes"}, "$.stream"),
        ({"messages": [], "tools": ["x"]}, "$.tools[0]"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(fields: dict[str, Any], place: str) -> None:
    assert place in refusal(Kind.CHAT, json.dumps({"model": "m", **fields}).encode())


@pytest.mark.parametrize("field", ["tools", "options", "format", "messages"])
def test_deep_nesting_is_refused(field: str) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    if field in ("options", "format"):
        deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    refusal(Kind.CHAT, b'{"model":"m","%b":%b}' % (field.encode(), deep))


def test_the_name_of_a_model_to_show() -> None:
    assert read_model_name(b'{"model":"a"}') == "a"
    assert read_model_name(b'{"name":"b"}') == "b"
    for body in (b"{}", b'{"model":1}', b"", b'{"model":""}'):
        with pytest.raises(ApiError):
            read_model_name(body)


# -- numbers -------------------------------------------------------------------------------------


def test_whole_numbers_may_be_written_with_a_point_or_an_exponent() -> None:
    chat = read_call(
        Kind.CHAT,
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":false,"keep_alive":6e1,'
        b'"logprobs":true,"top_logprobs":2.0,"options":{"num_predict":1e1,"num_ctx":8.192e3,'
        b'"seed":18446744073709551615,"top_k":4e1,"repeat_last_n":64.0,"mirostat":0.0}}',
    )
    assert (chat.keep_alive_s, chat.num_ctx) == (60, 8192)
    numbers = {k: v for k, v in chat.fields.items() if isinstance(v, float | int)}
    assert json.dumps(numbers) == json.dumps(
        {
            "seed": 2**64 - 1,
            "top_k": 40,
            "repeat_last_n": 64,
            "mirostat": 0,
            "max_tokens": 10,
            "logprobs": True,
            "top_logprobs": 2,
        }
    )
    embed = read_call(Kind.EMBED, b'{"model":"m","input":"x","dimensions":2.0}')
    assert embed.dimensions == 2
    with pytest.raises(ApiError, match="multiple of"):
        read_call(Kind.EMBED, b'{"model":"m","input":"x","dimensions":2.5}')
    enormous = read_call(Kind.EMBED, b'{"model":"m","input":"x","options":{"num_ctx":1e30}}')
    assert enormous.num_ctx == 2**31 - 1


@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.GENERATE])
@pytest.mark.parametrize(("said", "sent"), [(-1, 8192), (-2.0, 8192), (0, 0), (64, 64)])
def test_a_negative_repeat_last_n_means_the_whole_context(
    kind: Kind, said: float, sent: int
) -> None:
    made = call(kind, messages=[user("Hi")], prompt="Hi", options={"repeat_last_n": said})
    assert made.request("m", 8192)["repeat_last_n"] == sent
