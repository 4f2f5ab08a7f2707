"""An engine that refuses the gateway's key: the client is told whose key, and where that is."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.support.asking import CHAT, Clock, chat, stream
from tests.support.schema_values import config, model, variant
from tests.support.stack import running_stack
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import EngineOptions, Secret
from trio_gateway.engine.clients.facts import Health

pytestmark = [pytest.mark.usefixtures("autojump_clock"), pytest.mark.slow]

PROMPT = {"model": "m", "prompt": "Hi", "input": "Hi", "query": "q", "documents": ["d"]}
MESSAGES = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
ASKED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, MESSAGES),
    (CHAT, {**MESSAGES, "stream": True}),
    ("/v1/completions", PROMPT),
    ("/v1/embeddings", PROMPT),
    ("/v1/rerank", PROMPT),
    ("/v1/responses", PROMPT),
    ("/v1/messages", MESSAGES),
    ("/v1/messages", {**MESSAGES, "stream": True}),
    ("/v1/audio/speech", {"model": "m", "input": "Hi", "voice": "v"}),
    ("/api/chat", MESSAGES),
    ("/api/chat", {**MESSAGES, "stream": False}),
    ("/api/generate", PROMPT),
    ("/api/embed", PROMPT),
    ("/upstream/m/props", {}),
]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("path", "body"), ASKED, ids=lambda given: str(given)[:40])
async def test_it_is_a_502_that_names_the_engine_and_its_key(
    path: str, body: dict[str, Any], status: int
) -> None:
    endpoints = ENGINE_TYPES["llama.cpp"]
    given = config(model("m", variant(args=("--api-key", "k")), endpoints=ALL, engine=endpoints))
    async with running_stack(given) as stack:
        stack.engines.status = status
        stack.engines.scripts = [[b'{"error": {"message": "Invalid API Key"}}']]
        answer = await stack.post(path, json.dumps(body).encode())
        assert len(stack.engines.requests) == 1  # it is not asked twice
    said = answer.content.decode()
    assert answer.status == 502, said
    assert "the engine m:4096" in said
    assert f"(HTTP {status})" in said
    assert "--api-key in its `args`" in said
    assert ("Invalid API Key" in said) == (status == 403)


ALL = frozenset(
    {
        "chat/completions", "completions", "embeddings", "rerank", "responses", "messages",
        "audio/speech", "audio/transcriptions",
    }
)  # fmt: skip


async def test_a_form_gets_it_as_well() -> None:
    async with running_stack(config(model("m", endpoints=ALL))) as stack:
        stack.engines.status = 401
        form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = await stack.post("/v1/audio/transcriptions", form, kind)
    assert (answer.status, json.loads(answer.content)["error"]["code"]) == (
        502,
        "engine_key_refused",
    )


async def test_a_stream_that_has_begun_ends_with_it(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), stream_keepalive_s=0.5)) as stack:
        stack.engines.status = 401
        answer = (await stream(stack, chat(stream=True))).decode()
    assert ": waits for m to load" in answer
    assert '"code":"engine_key_refused"' in answer
    assert "[DONE]" not in answer


async def test_an_engine_that_refuses_to_say_whether_it_is_ready_has_not_started() -> None:
    options = EngineOptions(api_key=Secret("k"))
    async with running_stack(config(model("m", variant(options=options)))) as stack:
        stack.engines.sick = Health(False, "HTTP 401 at /health", refused=401)
        answer = await stack.post(CHAT, chat())
    assert answer.status == 502
    assert "check `api_key` of the model or its variant" in answer.content.decode()


async def test_one_that_refuses_to_say_what_it_serves_is_ready_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = EngineOptions(api_key=Secret("k"))
    async with running_stack(config(model("m", variant(options=options)))) as stack:
        monkeypatch.setattr(stack.engines.client_type, "key_refused", 401)  # as `ask` notes it
        with caplog.at_level(logging.WARNING):
            assert (await stack.post(CHAT, chat())).status == 200
    assert "the engine m:4096 asks for a key (HTTP 401)" in caplog.text
