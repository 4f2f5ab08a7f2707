"""The real engine (llama.cpp in xllamacpp) with a real model, through the whole gateway."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.harness import (
    STOPPED_AT,
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    model,
    real_variant,
    running_gateway,
)
from tests.support.patience import eventually

QUESTION = "Name the capital city of France."
STORY, STORY_TOKENS = "Write a long story.", 1500


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    config = configuration(
        model("smollm2", real_variant(1024), real_variant(4096)),
        model("other", real_variant(2048)),
        model(
            "embedder",
            real_variant(2048, "--embeddings", "--pooling", "mean"),
            engine="presets.engines.llamacpp_secondary",
        ),
        model(
            "missing",
            "{ binary = presets.binaries.embedded, context = 512,"
            ' args = { "-m", "/no/such.gguf" } }',
        ),
    )
    with running_gateway(tmp_path_factory.mktemp("real"), config) as running:
        yield running


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    url = f"{gateway.base_url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def engine_url(gateway: GatewayProcess, variant: str) -> str:
    """Of its newest engine."""
    ready = rf"{variant}: ready in .* (http://127.0.0.1:\d+),"
    gateway.wait_for_line(ready)
    return str(re.findall(ready, gateway.log)[-1])


def test_a_chat_answers(gateway: GatewayProcess) -> None:
    response = gateway.chat("smollm2", QUESTION, temperature=0, max_tokens=16)
    assert response.status_code == 200
    assert "Paris" in response.json()["choices"][0]["message"]["content"]
    assert response.headers["X-Gateway-Variant"] == "1024"
    need, used = int(response.headers["X-Gateway-Need"]), response.json()["usage"]["prompt_tokens"]
    assert need >= used + 16


def test_a_conversation_grows_into_the_larger_variant_by_the_exact_count(
    gateway: GatewayProcess,
) -> None:
    small = gateway.chat("smollm2", QUESTION)
    assert small.headers["X-Gateway-Variant"] in ("1024", "4096")
    # 3,000 bytes are 600 tokens: more than 1,024 by the bound, less by the count.
    middle = gateway.chat("smollm2", "word " * 600)
    assert middle.headers["X-Gateway-Variant"] == small.headers["X-Gateway-Variant"]
    used = middle.json()["usage"]["prompt_tokens"]
    large = gateway.chat("smollm2", "word " * 1100)
    assert large.headers["X-Gateway-Variant"] == "4096"
    assert large.json()["usage"]["prompt_tokens"] > 1024 > used


def test_the_need_counts_tools_and_parts(gateway: GatewayProcess) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "word " * 500,
            "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
        },
    }
    parts = [{"type": "text", "text": "word " * 400}]
    messages = [{"role": "user", "content": parts}]
    response = gateway.chat("smollm2", messages=messages, tools=[tool])
    assert response.status_code == 200, response.text
    need = int(response.headers["X-Gateway-Need"])
    assert need >= response.json()["usage"]["prompt_tokens"] + 8


def test_a_swap_to_another_model_and_the_embedder_beside_it(gateway: GatewayProcess) -> None:
    assert gateway.chat("other", QUESTION).status_code == 200
    swapped = gateway.chat("smollm2", QUESTION)
    assert swapped.status_code == 200
    assert int(swapped.headers["X-Gateway-Load-Ms"]) > 0
    with gateway.client() as http:
        body = {"model": "embedder", "input": "text"}
        assert http.post("/v1/embeddings", json=body).status_code == 200
    assert len(gateway.engines()) == 2


def test_the_engine_s_own_error_passes_through(gateway: GatewayProcess) -> None:
    with gateway.client() as http:
        body = {"model": "other", "input": "text"}
        response = http.post("/v1/embeddings", json=body)
    assert response.status_code == 501
    assert response.json()["error"]["type"] == "not_supported_error"


def test_a_client_that_goes_away_stops_the_generation(gateway: GatewayProcess) -> None:
    before = gateway.lines_so_far()
    gateway.chat("other", QUESTION)
    gateway.wait_for_line(STOPPED_AT, after=before)  # not the end that this is about
    begun = gateway.lines_so_far()
    with gateway.client() as http:
        body = chat_body("other", STORY, stream=True, max_tokens=STORY_TOKENS, ignore_eos=True)
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert any(b'"content":"' in piece for piece in response.iter_bytes())
    told = gateway.wait_for_line(STOPPED_AT, after=begun)
    assert int(told[1]) < STORY_TOKENS


def test_a_missing_model_file_is_a_502_with_the_engine_s_words(gateway: GatewayProcess) -> None:
    response = gateway.chat("missing")
    assert response.status_code == 502
    error = response.json()["error"]
    assert "exited with code 1 while starting" in error["message"]
    assert "\n" not in error["message"]
    assert any("failed to load model" in line for line in error["engine_output"])


def test_an_engine_killed_in_mid_stream_breaks_the_stream_with_an_error(
    gateway: GatewayProcess, client: openai.OpenAI
) -> None:
    gateway.chat("other", QUESTION)
    stream = client.chat.completions.create(
        model="other",
        messages=[{"role": "user", "content": STORY}],
        max_tokens=STORY_TOKENS,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(stream)
    for engine in gateway.engines():
        engine.kill()
    with pytest.raises(openai.APIError, match="was killed by signal 9"):
        for _ in stream:
            pass
    assert gateway.chat("other", QUESTION).status_code == 200


def test_a_stopped_process_never_gets_ready_and_is_cleaned_up(tmp_path: Path) -> None:
    config = configuration(
        model("smollm2", real_variant(1024), engine_startup_timeout="1.5"),
        fake_model("fake"),
        health_check_timeout="0.2",
        engine_stop_timeout="1",
    )
    with running_gateway(tmp_path, config) as gateway, gateway.client() as http:
        body = json.dumps(chat_body("smollm2")).encode()
        request = http.build_request("POST", "/v1/chat/completions", content=body)

        def stop_the_engine() -> bool:
            engines = gateway.engines()
            for engine in engines:
                engine.send_signal(signal.SIGSTOP)
            return bool(engines)

        stopper = threading.Thread(target=lambda: eventually(stop_the_engine, within_s=5))
        stopper.start()
        response = http.send(request)
        stopper.join()
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "engine_startup_timeout"
        assert gateway.chat("fake").status_code == 200


def test_nothing_is_left_of_a_killed_gateway(tmp_path: Path) -> None:
    config = configuration(model("smollm2", real_variant(1024)))
    with running_gateway(tmp_path, config) as gateway:
        assert gateway.chat("smollm2", QUESTION).status_code == 200
        assert len(gateway.engines()) == 1
        gateway.process.kill()
        gateway.wait()
        gateway.assert_nothing_left(within_s=1.0)


def own_key(gateway: GatewayProcess, name: str) -> dict[str, str]:
    """The header that the model's engine asks for, from its environment."""
    key = gateway.engine_of(name).environ()["LLAMA_API_KEY"]
    assert key not in " ".join(gateway.engine_of(name).cmdline())
    assert key not in gateway.log
    return {"Authorization": f"Bearer {key}"}


def test_the_engine_saves_a_slot_where_it_is_told_to(tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    slots.mkdir()
    config = configuration(model("smollm2", real_variant(1024, "--slot-save-path", str(slots))))
    with running_gateway(tmp_path, config) as gateway, gateway.client() as http:
        assert gateway.chat("smollm2", QUESTION).status_code == 200
        engine, key = engine_url(gateway, "smollm2:1024"), own_key(gateway, "smollm2")
        url, name = f"{engine}/slots/0?action=save", {"filename": "one.bin"}
        assert http.post(url, json=name).status_code == 401
        assert [*slots.iterdir()] == []
        saved = http.post(url, json=name, headers=key)
        assert saved.json()["n_saved"] > 20
        status = (slots / "one.bin").stat()
        assert (status.st_size, status.st_mode & 0o777) == (saved.json()["n_written"], 0o600)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/completion"),
        ("POST", "/apply-template"),
        ("POST", "/tokenize"),
        ("POST", "/slots/0?action=save"),
        ("POST", "/slots/0?action=erase"),
        ("GET", "/slots"),
        ("GET", "/props"),
        ("GET", "/metrics"),
    ],
)
def test_a_foreign_page_gets_nothing_from_the_engine_s_own_port(
    gateway: GatewayProcess, method: str, path: str
) -> None:
    assert gateway.chat("other", QUESTION).status_code == 200
    engine = engine_url(gateway, "other:2048")
    with gateway.client() as http:
        for headers in ({}, {"Authorization": "Bearer guessed"}):
            foreign = {"Origin": "https://evil.example", **headers}
            body = chat_body("other") if method == "POST" else None
            answer = http.request(method, f"{engine}{path}", json=body, headers=foreign)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"
        health = http.get(f"{engine}/health", headers={"Origin": "https://evil.example"})
        assert health.json() == {"status": "ok"}  # all that is public


def test_each_start_of_an_engine_has_another_key(gateway: GatewayProcess) -> None:
    assert gateway.chat("smollm2", QUESTION).status_code == 200
    first = own_key(gateway, "smollm2")
    assert gateway.chat("other", QUESTION).status_code == 200
    begun = gateway.lines_so_far()
    assert gateway.chat("smollm2", QUESTION).status_code == 200
    gateway.wait_for_line(r"smollm2:1024: ready in", after=begun)
    assert own_key(gateway, "smollm2") != first


def test_an_engine_with_a_key_that_the_gateway_does_not_know_is_a_502_that_says_so(
    tmp_path: Path,
) -> None:
    wrapper = tmp_path / "wrapper"
    script = '#!/bin/sh\nLLAMA_API_KEY=its-own exec "$ENGINE" "$@"\n'
    wrapper.write_text(script)
    wrapper.chmod(0o755)
    variant = real_variant(1024).replace("presets.binaries.embedded", f'"{wrapper}"')
    variant = variant.replace("{", "{ env = { ENGINE = presets.binaries.embedded }, ", 1)
    config = configuration(
        model("unknown", variant), model("known", variant, api_key='"its-own"'),
        model("arg", real_variant(1024, "--api-key", "of-args")),
    )  # fmt: skip
    with running_gateway(tmp_path, config) as gateway:
        status, code, message = gateway.error_of("unknown")
        assert (status, code) == (502, "engine_key_refused")
        assert message == (
            "the engine unknown:1024 asks for a key (HTTP 401); set `api_key` of the model or its "
            "variant"
        )
        gateway.wait_for_line("WARNING.*the engine unknown:1024 asks for a key")
        assert gateway.chat("known").status_code == 200
        assert gateway.chat("arg").status_code == 200
        assert int(gateway.chat("arg").headers["X-Gateway-Need"]) > 0
