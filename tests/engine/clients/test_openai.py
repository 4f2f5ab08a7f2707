"""OpenAIEngine against a small server that answers as vLLM and others do, or do not."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, chat
from tests.support.fakes import FakeEngines
from tests.support.openai_site import Site, running
from tests.support.schema_values import config, model, variant
from tests.support.sockets import whole_body
from tests.support.stack import Stack
from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, GatewayConfig, Secret
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.openai import OpenAIEngine, OpenAIKind
from trio_gateway.engine.manager import EngineManager

TIMEOUT_S = 2.0
INPUT_TOKENS = "/v1/chat/completions/input_tokens"
VLLM = [{"id": "org/model", "max_model_len": 4096}, {"id": "lora", "max_model_len": 2048}]


@asynccontextmanager
async def engine(site: Site, **options: Any) -> AsyncIterator[OpenAIEngine]:
    async with running(site):
        client = OpenAIEngine(site.url, EngineOptions(**options))
        yield client
        await client.aclose()


# -- how it is launched -----------------------------------------------------------------------


def test_nothing_is_added_to_the_arguments_but_the_port() -> None:
    args = ["serve", "m", "--port=${PORT}"]
    assert OpenAIKind().launch_args(args, "127.0.0.1", 5000) == ["serve", "m", "--port=5000"]
    assert OpenAIKind().fixed_address(EngineArgs(["--port", "8000"])) is None
    assert not OpenAIKind.has_slots


# -- health -----------------------------------------------------------------------------------


async def test_health_is_asked_where_the_engine_has_it() -> None:
    site = Site(answers={"/health": (404, {})})
    async with engine(site) as client:
        assert (await client.check_health(TIMEOUT_S)).ok
        assert (await client.check_health(TIMEOUT_S)).ok
        assert site.asked == ["/health", "/v1/models", "/v1/models"]
        site.answers["/v1/models"] = (503, {})
        assert not (await client.check_health(TIMEOUT_S)).ok


async def test_a_loading_engine_is_not_taken_for_one_without_a_health_endpoint() -> None:
    site = Site(answers={"/health": (503, {})})
    async with engine(site) as client:
        health = await client.check_health(TIMEOUT_S)
        assert (health.ok, health.silent, site.asked) == (False, False, ["/health"])


async def test_a_health_path_of_ones_own_is_asked_alone() -> None:
    site = Site(answers={"/sdapi/ping": (404, {})})
    async with engine(site, health_path="/sdapi/ping") as client:
        assert not (await client.check_health(TIMEOUT_S)).ok
    assert site.asked == ["/sdapi/ping"]


async def test_an_engine_that_is_not_there_is_silent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = OpenAIEngine(f"http://127.0.0.1:{taken.getsockname()[1]}")
        health = await client.check_health(TIMEOUT_S)
        assert (health.ok, health.silent) == (False, True)
        assert await client.read_facts(TIMEOUT_S) == EngineFacts()


# -- its name for the model -------------------------------------------------------------------


async def test_the_engine_says_how_it_calls_its_model() -> None:
    async with engine(Site(answers={"/v1/models": (200, {"data": VLLM})})) as client:
        assert client.transform_request("chat/completions", b'{"model":"m"}') == b'{"model":"m"}'
        assert (await client.read_facts(TIMEOUT_S)).context == 4096
        body = client.transform_request("chat/completions", b'{ "model":"m", "n": 1.0 }')
        assert body == b'{ "model":"org/model", "n": 1.0 }'


async def test_a_name_that_is_configured_counts_and_so_does_its_context() -> None:
    site = Site(answers={"/v1/models": (200, {"data": VLLM})})
    async with engine(site, served_name="lora") as client:
        assert (await client.read_facts(TIMEOUT_S)).context == 2048
        assert client.served_name == "lora"


@pytest.mark.parametrize(
    "answer", [{}, [], None, {"data": {}}, {"data": [1, {"id": 2}]}, {"data": [{"id": "x"}]}]
)
async def test_an_engine_that_says_little_of_its_models_is_taken_as_it_is(answer: Any) -> None:
    async with engine(Site(answers={"/v1/models": (200, answer)})) as client:
        assert await client.read_facts(TIMEOUT_S) == EngineFacts()


async def test_the_engine_gets_its_own_key() -> None:
    site = Site()
    async with (
        engine(site, api_key=Secret("sk-own")) as client,
        client.forward_request(
            "POST", CHAT, [(b"x-api-key", b"sk-of-a-client")], b'{"model":"m"}'
        ) as exchange,
    ):
        await whole_body(exchange)
    lines = site.heads[0].split(b"\r\n")
    assert b"Authorization: Bearer sk-own" in lines
    assert [x for x in lines if x.lower().startswith(b"x-api-key")] == [b"X-Api-Key: sk-own"]


# -- counting ---------------------------------------------------------------------------------


def counted(tokens: int) -> tuple[int, dict[str, Any]]:
    return 200, {"count": tokens, "max_model_len": 4096, "tokens": [0] * tokens}


async def test_a_vllm_counts_chats_with_tools_and_template() -> None:
    site = Site(answers={"/tokenize": counted(12)})
    async with engine(site, served_name="org/model") as client:
        tools = [{"type": "function", "function": {"name": "f"}}]
        body = chat("m", tools=tools, temperature=0.5)
        for _ in range(2):
            assert await client.count_tokens("chat/completions", body, TIMEOUT_S) == 12
    asked = json.loads(site.bodies["/tokenize"][0])
    assert set(asked) == {"model", "messages", "tools"}
    assert asked["model"] == "org/model"
    assert site.asked.count(INPUT_TOKENS) == 1  # it is not there, and not asked for again


async def test_a_vllm_counts_prompts() -> None:
    site = Site(answers={"/tokenize": counted(5)})
    async with engine(site) as client:
        for endpoint, key in [("completions", "prompt"), ("embeddings", "input")]:
            body = json.dumps({key: ["one", "two"]}).encode()
            assert await client.count_tokens(endpoint, body, TIMEOUT_S) == 5
        ids = json.dumps({"prompt": [1, 2, 3]}).encode()
        assert await client.count_tokens("completions", ids, TIMEOUT_S) == 3


@pytest.mark.parametrize(
    "answer",
    [(404, {}), (200, {"tokens": []}), (200, {"count": 0}), (200, {"count": "5"}), (500, {})],
    ids=str,
)
async def test_an_engine_that_does_not_count_is_not_made_to(answer: tuple[int, Any]) -> None:
    site = Site(answers={"/tokenize": answer})
    async with engine(site) as client:
        assert await client.count_tokens("chat/completions", chat("m"), TIMEOUT_S) is None
        assert await client.count_tokens("images/generations", b"{}", TIMEOUT_S) is None


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("chat/completions", INPUT_TOKENS),
        ("messages", "/v1/messages/count_tokens"),
        ("responses", "/v1/responses/input_tokens"),
    ],
)
async def test_an_engine_that_counts_requests_of_a_kind_is_asked_so(
    endpoint: str, path: str
) -> None:
    async with engine(Site(answers={path: (200, {"input_tokens": 9})})) as client:
        assert await client.count_tokens(endpoint, chat("m"), TIMEOUT_S) == 9


# -- in a gateway -----------------------------------------------------------------------------

SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path != "/v1/models":
            return self.answer({}, 404)
        self.answer({"data": [{"id": "org/model", "max_model_len": 4096}]})
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"model": request["model"], "path": self.path})
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class RealProcesses(FakeEngines):
    def manager(self, given: GatewayConfig) -> EngineManager:
        return EngineManager(given)


@pytest.mark.processes
async def test_a_server_of_ones_own_is_started_asked_and_stopped(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    started = variant(
        4096, binary=sys.executable, args=(str(program), "${PORT}"), workdir=tmp_path, parallel=8,
        timeouts=EngineTimeouts(stop_s=3.0),
    )  # fmt: skip
    given = config(
        model("m", started, engine=ENGINE_TYPES["openai"], endpoints=frozenset({"embeddings"})),
        model("n", started, engine=ENGINE_TYPES["openai"]),
    )
    async with trio.open_nursery() as nursery:
        stack = Stack(nursery, RealProcesses(), given)
        await nursery.start(stack.gateway.run)
        async with stack.http:
            refused = await stack.post(CHAT, chat("m"))
            assert (refused.status, b"endpoint_not_supported" in refused.content) == (400, True)
            answer = await stack.post(CHAT, chat("n"))
            assert json.loads(answer.content) == {"model": "org/model", "path": CHAT}
            (running_engine,) = stack.manager.engines.values()
            assert running_engine.info is not None
            assert (running_engine.info.slots, running_engine.info.context) == (8, 4096)
        stack.gateway.begin_shutdown()
        with trio.fail_after(5):
            await stack.manager.stopped.wait()
        nursery.cancel_scope.cancel(reason="the test is over")
