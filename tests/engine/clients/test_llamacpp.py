"""LlamaCppEngine against a small server that answers as builds of llama-server do, or do not."""

from __future__ import annotations

import socket
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.support.llama import CHAT_BODY, NOT_FOUND, Llama, engine
from tests.support.sockets import read_request, serving
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.engine.clients.client import NO_OPTIONS
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine, LlamaCppKind
from trio_gateway.server.api.endpoints import ANTHROPIC, LLAMACPP

CHAT, COMPLETION, EMBEDDINGS = "chat/completions", "completions", "embeddings"
TIMEOUT_S = 10.0

INPUT_TOKENS = "/v1/chat/completions/input_tokens"


# -- where it listens -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-m", "x"], ["-m", "x", "--host", "127.0.0.1", "--port", "5000"]),
        (["--port", "${PORT}"], ["--port", "5000", "--host", "127.0.0.1"]),
        (["--port=${PORT}", "--host=::1"], ["--port=5000", "--host=::1"]),
        (["--host", "0.0.0.0"], ["--host", "0.0.0.0", "--port", "5000"]),
        (["--portable"], ["--portable", "--host", "127.0.0.1", "--port", "5000"]),
    ],
    ids=lambda args: " ".join(args),
)
def test_an_engine_is_told_where_to_listen_unless_its_arguments_say(
    args: list[str], expected: list[str]
) -> None:
    given = tuple(args)
    assert LlamaCppKind().launch_args(given, "127.0.0.1", 5000) == expected
    assert given == tuple(args)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], None),
        (["--host", "10.0.0.5"], None),
        (["--port", "${PORT}"], None),
        (["--port"], None),
        (["--port", "8081"], ("127.0.0.1", 8081)),
        (["--port=8081", "--host=10.0.0.5"], ("10.0.0.5", 8081)),
        (["--port", "8081", "--host", "0.0.0.0"], ("127.0.0.1", 8081)),
        (["--port", "8081", "--host", "localhost"], ("127.0.0.1", 8081)),
        (["--port", "8081", "--port", "8082"], ("127.0.0.1", 8082)),
    ],
    ids=str,
)
def test_a_fixed_address_is_read_from_the_arguments(
    args: list[str], expected: tuple[str, int] | None
) -> None:
    assert LlamaCppKind().fixed_address(EngineArgs(args)) == expected


def test_it_serves_what_a_llama_server_has_and_the_gateway_routes() -> None:
    served = LlamaCppKind.endpoints
    assert {"chat/completions", "responses", "messages", "rerank", "props"} <= served
    assert "audio/speech" not in served
    assert {e.name for e in (*LLAMACPP, *ANTHROPIC)} <= served


async def test_paths_have_the_prefix_that_the_arguments_name() -> None:
    args = EngineArgs(["--api-prefix", "/llm"])
    assert LlamaCppKind().path_prefix(args) == "/llm"
    assert LlamaCppKind().path_prefix(EngineArgs([], {"LLAMA_ARG_API_PREFIX": "/x"})) == "/x"
    assert LlamaCppKind().path_prefix(EngineArgs([])) == ""
    props = {"total_slots": 2, "default_generation_settings": {"n_ctx": 512}}
    answers = {"/llm/health": (200, {}), "/llm/props": (200, props), "/llm/v1/models": (200, {})}
    async with serving(Llama(answers)) as port:
        client = LlamaCppKind().client(f"http://127.0.0.1:{port}/llm", NO_OPTIONS)
        assert (await client.check_health(TIMEOUT_S)).ok
        assert (await client.read_facts(TIMEOUT_S)).context == 512
        async with client.forward_request("GET", "/v1/models", [], b"") as exchange:
            assert exchange.status == 200
        await client.aclose()


# -- health -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "ok"), [(200, True), (503, False), (404, False)])
async def test_an_engine_is_healthy_when_it_answers_200(status: int, ok: bool) -> None:
    async with engine(Llama({"/health": (status, {})})) as client:
        health = await client.check_health(TIMEOUT_S)
    assert (health.ok, health.detail) == (ok, f"HTTP {status} at /health")
    assert not health.silent


async def test_an_engine_that_nobody_listens_for_is_not_healthy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = LlamaCppEngine(f"http://127.0.0.1:{taken.getsockname()[1]}")
        health = await client.check_health(TIMEOUT_S)
        await client.aclose()
    assert (health.ok, health.silent) == (False, True)
    assert health.detail.startswith("nothing answers")


async def test_an_engine_that_hangs_is_not_healthy_after_the_timeout() -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with engine(hang) as client:
        health = await client.check_health(0.05)
    assert (health.ok, health.silent) == (False, True)
    assert health.detail == "no answer within 0.05 s"


async def test_what_is_not_http_is_not_healthy() -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await read_request(stream)
        await stream.send_all(b"SSH-2.0-OpenSSH\r\n")

    async with engine(talk) as client:
        health = await client.check_health(TIMEOUT_S)
    assert (health.ok, health.silent) == (False, False)


# -- facts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "facts"),
    [
        (
            (200, {"total_slots": 4, "default_generation_settings": {"n_ctx": 2048}}),
            EngineFacts(slots=4, context=2048),
        ),
        ((200, {"total_slots": 4}), EngineFacts(slots=4)),
        (
            (200, {"chat_template": "t", "modalities": {"vision": True, "audio": False}}),
            EngineFacts(template="t", media=frozenset({"vision"})),
        ),
        (
            (200, {"chat_template": "t", "chat_template_tool_use": "u", "modalities": []}),
            EngineFacts(template="u"),
        ),
        ((200, {"total_slots": 0, "default_generation_settings": []}), EngineFacts()),
        (
            (200, {"total_slots": "4", "default_generation_settings": {"n_ctx": None}}),
            EngineFacts(),
        ),
        ((200, [1]), EngineFacts()),
        ((200, b"{not json"), EngineFacts()),
        ((200, b'"\xff"'), EngineFacts()),
        (NOT_FOUND, EngineFacts()),
    ],
    ids=["all", "slots", "template", "tools", "zero", "types", "list", "cut", "bytes", "404"],
)
async def test_an_engine_says_its_slots_and_the_context_of_one_request(
    answer: tuple[int, Any], facts: EngineFacts
) -> None:
    async with engine(Llama({"/props": answer})) as client:
        assert await client.read_facts(TIMEOUT_S) == facts


# -- counting ---------------------------------------------------------------------------------


async def test_a_chat_is_counted_by_the_engine_itself() -> None:
    llama = Llama({INPUT_TOKENS: (200, {"input_tokens": 32, "object": "response.input_tokens"})})
    async with engine(llama) as client:
        assert await client.count_tokens(CHAT, CHAT_BODY, TIMEOUT_S) == 32
    assert (llama.asked, llama.bodies) == ([INPUT_TOKENS], [CHAT_BODY])


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_an_older_build_is_asked_for_the_prompt_and_its_tokens_and_that_is_remembered(
    status: int,
) -> None:
    llama = Llama({INPUT_TOKENS: (status, {}), "/apply-template": (200, {"prompt": "a b c d"})})
    async with engine(llama) as client:
        assert await client.count_tokens(CHAT, CHAT_BODY, TIMEOUT_S) == 4
        assert await client.count_tokens(CHAT, CHAT_BODY, TIMEOUT_S) == 4
    assert llama.asked == [INPUT_TOKENS, *["/apply-template", "/tokenize"] * 2]
    assert msgspec.json.decode(llama.bodies[2]) == {"content": "a b c d", "add_special": True}


async def test_a_passing_failure_of_the_count_is_not_remembered() -> None:
    llama = Llama({INPUT_TOKENS: (500, {}), "/apply-template": (200, {"prompt": "a b"})})
    async with engine(llama) as client:
        assert await client.count_tokens(CHAT, CHAT_BODY, TIMEOUT_S) == 2
        llama.answers[INPUT_TOKENS] = (200, {"input_tokens": 9})
        assert await client.count_tokens(CHAT, CHAT_BODY, TIMEOUT_S) == 9


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {INPUT_TOKENS: (200, {"input_tokens": "many"}), "/apply-template": (200, {})},
        {INPUT_TOKENS: (200, b"[["), "/apply-template": (200, {"prompt": 5})},
        {"/apply-template": (200, {"prompt": "a"}), "/tokenize": (200, {"tokens": "many"})},
        {"/apply-template": (200, {"prompt": "a"}), "/tokenize": (500, {})},
    ],
    ids=["nothing", "no number", "no json", "no list", "no tokenizer"],
)
async def test_an_engine_that_cannot_count_says_nothing(answers: dict[str, Any]) -> None:
    async with engine(Llama(answers)) as client:
        assert await client.count_tokens(CHAT, CHAT_BODY, TIMEOUT_S) is None


@pytest.mark.parametrize(
    ("prompt", "tokens", "questions"),
    [
        ("one two three", 3, 1),
        (["one", "one two three"], 3, 2),
        ([5, 6, 7, 8], 4, 0),
        ([[5, 6], [5, 6, 7]], 3, 0),
        ([[5, 6], "one two three"], 3, 1),
        ([5, "one two three", 6], 5, 1),
        ([], None, 0),
        (None, None, 0),
        ({"prompt_string": "one"}, None, 0),
        ([[[["one"]]]], None, 0),
    ],
    ids=str,
)
async def test_prompts_of_every_shape_are_counted(
    prompt: Any, tokens: int | None, questions: int
) -> None:
    llama = Llama()
    async with engine(llama) as client:
        for endpoint, key in ((COMPLETION, "prompt"), (EMBEDDINGS, "input")):
            llama.asked.clear()
            body = msgspec.json.encode({key: prompt})
            assert await client.count_tokens(endpoint, body, TIMEOUT_S) == tokens
            assert llama.asked == ["/tokenize"] * questions


@pytest.mark.parametrize("prompt", ["one", ["one", "two"], [1, "two"]], ids=str)
async def test_a_prompt_that_cannot_be_counted_spoils_the_count(prompt: Any) -> None:
    async with engine(Llama({"/tokenize": (500, {})})) as client:
        body = msgspec.json.encode({"prompt": prompt})
        assert await client.count_tokens(COMPLETION, body, TIMEOUT_S) is None


async def test_an_engine_that_went_away_counts_nothing() -> None:
    async with engine(Llama()) as client:
        await client.aclose()
        assert await client.count_tokens(CHAT, CHAT_BODY, TIMEOUT_S) is None


async def test_an_engine_that_goes_away_while_it_counts_counts_nothing() -> None:
    asked = trio.Event()

    async def hang(stream: trio.SocketStream) -> None:
        await read_request(stream)
        asked.set()
        await trio.sleep_forever()

    counts: list[int | None] = []
    async with engine(hang) as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def count() -> None:
            counts.append(await client.count_tokens(CHAT, CHAT_BODY, TIMEOUT_S))

        await asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="it should have ended by itself")
    assert counts == [None]


async def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with engine(Llama({"/health": (200, {})})) as client:
        assert (await client.check_health(TIMEOUT_S)).ok
