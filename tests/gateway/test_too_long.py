"""A request that is too long, by every API's endpoint: refused by the gateway, or by the engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import httpcore
import pytest

from tests.support.asking import CHAT, Clock, header, read_all
from tests.support.llama import exceeded
from tests.support.reading import read_here
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.schema import RewriteConfig
from trio_gateway.server.api.endpoints import ENDPOINTS

CONTEXT = 4096
LONG = "word " * 5000  # more tokens than the context has, whatever the vocabulary
ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"content":"hi"}'
ALL = frozenset(row.name for row in ENDPOINTS)


def messages(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


class Api(NamedTuple):
    """An endpoint: what a request of this text has in it, how it names the answer's maximum, and
    whether that is a ceiling."""

    path: str
    content: Callable[[str], dict[str, Any]]
    limit: str | None
    shape: str
    is_ceiling: bool = False

    def request(self, text: str, most: Any = None, **fields: Any) -> bytes:
        body = {"model": "m", **self.content(text), **fields}
        if most is not None and self.shape == "Ollama":
            body["options"] = {self.limit: most}
        elif most is not None and self.limit is not None:
            body[self.limit] = most
        return json.dumps(body).encode()


APIS = (
    Api(CHAT, messages, "max_tokens", "OpenAI", True),
    Api(CHAT, messages, "max_completion_tokens", "OpenAI", True),
    Api("/chat/completions", messages, "max_tokens", "llama.cpp", True),
    Api("/v1/responses", lambda text: {"input": text}, "max_output_tokens", "OpenAI", True),
    Api("/v1/messages", messages, "max_tokens", "Anthropic", True),
    Api("/api/chat", messages, "num_predict", "Ollama", True),
    Api("/api/generate", lambda text: {"prompt": text}, "num_predict", "Ollama", True),
    Api(
        "/api/generate",
        lambda text: {"prompt": text, "suffix": "x"},
        "num_predict",
        "Ollama",
        True,
    ),
    Api("/v1/completions", lambda text: {"prompt": text}, "max_tokens", "OpenAI"),
    Api("/v1/completions", lambda text: {"prompt": text}, "n_predict", "OpenAI"),
    Api("/completion", lambda text: {"prompt": text}, "n_predict", "llama.cpp"),
    Api(
        "/infill",
        lambda text: {"input_prefix": text, "input_suffix": ""},
        "n_predict",
        "llama.cpp",
    ),
    Api("/v1/embeddings", lambda text: {"input": [text, "x"]}, None, "OpenAI"),
    Api("/embedding", lambda text: {"content": text}, None, "llama.cpp"),
    Api("/v1/rerank", lambda text: {"query": "x", "documents": [text]}, None, "llama.cpp"),
    Api("/api/embed", lambda text: {"input": text}, None, "Ollama"),
)
GENERATING = [api for api in APIS if api.limit is not None]


def name_of(api: Api) -> str:
    return f"{api.path} {api.limit}"


def given(*contexts: int, **fields: Any) -> Any:
    variants = map(variant, contexts or (CONTEXT,))
    return config(model("m", *variants, endpoints=ALL, **fields), stream_keepalive_s=3.0)


def told(api: Api, content: bytes) -> str:
    """The sentence, once everything around it is as this API's clients expect it."""
    body = json.loads(content)
    if api.shape == "Ollama":
        assert set(body) == {"error"}
        return str(body["error"])
    error = body["error"]
    if api.shape == "Anthropic":
        assert (body["type"], set(error)) == ("error", {"type", "message"})
        assert error["type"] == "invalid_request_error"
        return str(error["message"])
    assert error["code"] == "context_length_exceeded"
    if api.shape == "llama.cpp":
        assert error["type"] == "exceed_context_size_error"
        assert error["n_ctx"] == CONTEXT
        assert isinstance(error["n_prompt_tokens"], int)
    else:
        assert error["type"] == "invalid_request_error"
        assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


def check_words(api: Api, said: str, *, sent: bool) -> None:
    if api.shape == "Anthropic":
        assert re.match(rf"prompt is too long: \d+ tokens > {CONTEXT} maximum", said)
        return
    assert f"this model's maximum context length is {CONTEXT} tokens (m)" in said
    assert ("lower" in said) == sent
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"):
        assert (f"({name})" in said) == (sent and api.limit == name)


async def post(stack: Stack, api: Api, body: bytes) -> httpcore.Response:
    return await stack.post(api.path, body)


@pytest.mark.parametrize("api", APIS, ids=name_of)
async def test_what_is_refused_before_an_engine_is_asked(
    autojump_clock: Clock, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(given()) as stack:
        for is_large in (False, True):
            if is_large:
                read_here(monkeypatch, everything=True)
            for streamed in (False, True):
                response = await post(stack, api, api.request(LONG, stream=streamed))
                assert (response.status, stack.engines.requests) == (400, [])
                check_words(api, told(api, response.content), sent=False)


@pytest.mark.parametrize("api", APIS, ids=name_of)
async def test_what_an_engine_refuses_is_told_in_the_same_words(
    autojump_clock: Clock, api: Api
) -> None:
    async with running_stack(given()) as stack:
        for streamed in (False, True):
            stack.engines.statuses = [400]
            stack.engines.scripts = [[exceeded(5031, CONTEXT)]]
            response = await post(stack, api, api.request("Hi", stream=streamed))
            assert response.status == 400
            said = told(api, response.content)
            check_words(api, said, sent=False)
            assert "5031" in said


@pytest.mark.parametrize("api", GENERATING, ids=name_of)
async def test_what_the_largest_refuses_as_well_is_told_in_the_same_words(
    autojump_clock: Clock, api: Api
) -> None:
    async with running_stack(given(1024, CONTEXT)) as stack:
        stack.engines.statuses = [400, 400]
        stack.engines.scripts = [[exceeded(1500, 1024)], [exceeded(5031, CONTEXT)]]
        response = await post(stack, api, api.request("Hi", 8, stream=False))
        assert (response.status, len(stack.engines.requests)) == (400, 2)
        said = told(api, response.content)
        assert "5031" in said
        assert ("prompt is too long" in said) == (api.shape == "Anthropic")


@pytest.mark.parametrize("api", GENERATING, ids=name_of)
async def test_a_stream_that_has_begun_ends_with_the_same_words(
    autojump_clock: Clock, api: Api
) -> None:
    async with running_stack(given()) as stack:
        stack.engines.load_s = 10.0
        stack.engines.statuses = [400]
        stack.engines.scripts = [[exceeded(5031, CONTEXT)]]
        url, body = f"http://gateway{api.path}", api.request("Hi", 8, stream=True)
        async with stack.http.stream("POST", url, content=body) as response:
            assert response.status == 200
            content = await read_all(response)
    last = content.rstrip().rpartition(b"\n")[2].removeprefix(b"data: ")
    if api.shape == "Anthropic":
        assert b"event: error\n" in content
    if api.path == "/v1/responses":
        assert b"event: response.failed\n" in content
        failed = json.loads(last)["response"]["error"]
        assert failed["code"] == "context_length_exceeded"
        last = json.dumps({"error": json.loads(last)["error"]}).encode()
    said = told(api, last)
    assert "5031" in said
    assert b"[DONE]" not in content


NAMES = {"max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"}


async def check_lowered(stack: Stack, api: Api, most: float) -> None:
    stack.engines.requests.clear()
    stack.engines.scripts = [[ANSWER]]
    response = await post(stack, api, api.request("Hi", most, stream=False))
    assert response.status == 200
    sent = json.loads(stack.engines.requests[0][2])
    (lowered,) = (value for name, value in sent.items() if name in NAMES)
    assert 512 <= lowered < CONTEXT
    assert header(response, "X-Gateway-Answer-Limit") == f"{lowered}; asked=99999"


async def check_refused(stack: Stack, api: Api, most: float) -> None:
    """And what the refusal says is then served."""
    response = await post(stack, api, api.request("Hi", most, stream=False))
    said = told(api, response.content)
    assert response.status == 400
    if api.shape == "Anthropic":
        found = re.search(r"`max_tokens` exceed context limit: (\d+) \+ 99999 > 4096", said)
        assert found is not None
        least = CONTEXT - int(found[1])
    else:
        assert said.count(f"{api.limit}") == 2
        assert "cut" not in said
        least = int(re.findall(r"\d+", said)[-1])
    stack.engines.scripts = [[ANSWER]]
    assert (await post(stack, api, api.request("Hi", least, stream=False))).status == 200


@pytest.mark.parametrize("clamp", [None, False, True])
@pytest.mark.parametrize("api", GENERATING, ids=name_of)
async def test_a_maximum_that_does_not_fit_is_lowered_where_it_is_a_ceiling(
    autojump_clock: Clock, api: Api, clamp: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowers = api.is_ceiling if clamp is None else clamp
    async with running_stack(given(clamp_answer=clamp)) as stack:
        for most in (99_999, 99_999.0):
            await (check_lowered if lowers else check_refused)(stack, api, most)
        read_here(monkeypatch, everything=True)
        await (check_lowered if lowers else check_refused)(stack, api, 99_999)


async def test_every_other_byte_of_a_lowered_request_is_as_it_came(autojump_clock: Clock) -> None:
    async with running_stack(given()) as stack:
        body = (
            b'{ "model" :"m",\n "n_predict": 90000, "max_tokens":  32e3 ,"messages":'
            b'[{"role":"user","content":"\\u0048i"}], "temperature":0.70 }'
        )
        assert (await stack.post(CHAT, body)).status == 200
        sent = stack.engines.requests[0][2]
        limit = json.loads(sent)["max_tokens"]
        assert sent == body.replace(b"32e3", b"%d" % limit).replace(b"90000", b"%d" % limit)


async def test_a_maximum_of_the_configuration_is_not_the_clients_to_lower(
    autojump_clock: Clock,
) -> None:
    rewrite = RewriteConfig(set={"max_tokens": b"9000"})
    async with running_stack(given(clamp_answer=False, rewrite=rewrite)) as stack:
        api = APIS[0]
        response = await post(stack, api, api.request("Hi"))
        assert response.status == 400
        said = told(api, response.content)
        assert "(max_tokens, set by the configuration)" in said
        assert "lower" not in said


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5039 tokens "
        "(5031 in the messages, 8 in the completion). Please reduce the length of the messages.",
        "This model's maximum context length is 4096 tokens. However, your request has 5031 input "
        "tokens. Please reduce the length of the input messages.",
    ],
)
async def test_other_engines_words_are_understood(autojump_clock: Clock, message: str) -> None:
    for body in ({"error": {"message": message, "code": 400}}, {"message": message}):
        async with running_stack(given()) as stack:
            for api in APIS[0], APIS[4]:
                stack.engines.statuses = [400]
                stack.engines.scripts = [[json.dumps(body).encode()]]
                response = await post(stack, api, api.request("Hi", 8))
                assert response.status == 400
                check = told(api, response.content)
                assert "5031" in check


async def test_an_engine_that_counts_the_answer_as_well_gets_what_is_left(
    autojump_clock: Clock,
) -> None:
    said = (
        "'max_tokens' is too large: 32000. This model's maximum context length is 4096 tokens and "
        "your request has 1000 input tokens (32000 > 4096 - 1000)."
    )
    async with running_stack(given()) as stack:
        stack.engines.statuses = [400]
        stack.engines.scripts = [[json.dumps({"error": {"message": said}}).encode()], [ANSWER]]
        response = await stack.post(CHAT, APIS[0].request("Hi", 32000))
        assert response.status == 200
        first, second = (json.loads(body)["max_tokens"] for _, _, body in stack.engines.requests)
        assert first > second == 4096 - 1000 - 16
        assert header(response, "X-Gateway-Answer-Limit") == f"{second}; asked=32000"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/upstream/m/v1/messages", {}),
        ("/upstream/m/anything", {"Anthropic-Version": "2023-06-01"}),
    ],
)
async def test_an_engine_asked_by_hand_is_understood_by_anthropics_clients_as_well(
    autojump_clock: Clock, path: str, headers: dict[str, str]
) -> None:
    async with running_stack(given()) as stack:
        for tokens, printed in ((5031, 5031), (4096, 4097)):
            stack.engines.statuses = [400]
            stack.engines.scripts = [[exceeded(tokens, CONTEXT)]]
            response = await stack.post(path, b"{}", headers)
            assert json.loads(response.content) == {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": f"prompt is too long: {printed} tokens > 4096 maximum",
                },
            }


async def test_a_sum_that_only_the_engine_knows_is_passed_on_as_it_is(
    autojump_clock: Clock,
) -> None:
    said = (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
        "(1000 in the messages, 4000 in the completion)."
    )
    body = json.dumps({"error": {"message": said}}).encode()
    async with running_stack(given()) as stack:
        stack.engines.statuses = [400]
        stack.engines.scripts = [[body]]
        response = await stack.post(CHAT, APIS[0].request("Hi"))
        assert (response.status, response.content) == (400, body)
