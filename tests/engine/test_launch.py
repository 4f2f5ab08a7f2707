"""What an engine is started with: which key, and what of the gateway's environment."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.support.asking import CHAT, chat
from tests.support.schema_values import config, model, variant
from tests.support.sockets import read_request, serving
from tests.support.stack import Stack, running_stack
from trio_gateway.config.engine_key import EngineKey, KeyPlace
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import EngineOptions, GatewayConfig, Secret
from trio_gateway.engine.clients.facts import Health
from trio_gateway.engine.clients.registry import kind_of
from trio_gateway.engine.engine import Engine
from trio_gateway.engine.launch import Launch
from trio_gateway.engine.process.no_process import open_nothing

pytestmark = pytest.mark.slow  # each takes a second or two

VARIABLE = "LLAMA_API_KEY"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def given(
    engine: str = "llama.cpp", secrets: frozenset[str] = frozenset(), **fields: Any
) -> GatewayConfig:
    """A configuration with the model `m`, whose one variant has these fields."""
    found = config(model("m", variant(**fields), engine=ENGINE_TYPES[engine]))
    return msgspec.structs.replace(found, secret_variables=secrets)


async def started(stack: Stack) -> tuple[Engine, dict[str, str]]:
    assert (await stack.post(CHAT, chat())).status == 200
    (engine,) = stack.manager.engines.values()
    return engine, stack.engines.environments[-1]


def sent_key(engine: Engine) -> str | None:
    secret = engine.client.options.api_key
    return None if secret is None else secret.reveal()


@pytest.mark.parametrize("name", ["llama.cpp", "llama.cpp.secondary", "openai"])
@pytest.mark.usefixtures("autojump_clock")
async def test_each_start_has_a_fresh_key_of_its_own_in_its_environment_alone(name: str) -> None:
    async with running_stack(given(name)) as stack:
        engine, env = await started(stack)
        first = sent_key(engine)
        assert first is not None
        assert len(first) >= 32
        assert env[VARIABLE] == first
        assert first not in repr(engine.launch.argv(engine.client))
        stack.engines.alive[0].exit()
        again, env = await started(stack)
        assert sent_key(again) == env[VARIABLE] != first
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("fields", "sent", "in_env"),
    [
        ({"options": EngineOptions(api_key=Secret("k"))}, "k", "k"),
        ({"args": ("--api-key", "k")}, "k", None),
        ({"args": ("-e", f"{VARIABLE}=k")}, "k", None),
        ({"env": {VARIABLE: "k"}}, "k", "k"),
        ({"env": {VARIABLE: ""}}, None, ""),
    ],
    ids=["api_key", "args", "env among args", "env", "switched off"],
)
@pytest.mark.usefixtures("autojump_clock")
async def test_a_variant_that_has_a_key_keeps_it(
    fields: dict[str, Any], sent: str | None, in_env: str | None
) -> None:
    async with running_stack(given(**fields)) as stack:
        engine, env = await started(stack)
        assert (sent_key(engine), env.get(VARIABLE)) == (sent, in_env)


@pytest.mark.usefixtures("autojump_clock")
async def test_a_key_in_a_file_is_read_at_each_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\nfirst\nsecond\n")
    args = ("--api-key-file", "keys")
    async with running_stack(given(args=args, workdir=tmp_path)) as stack:
        engine, env = await started(stack)
        assert (sent_key(engine), VARIABLE in env) == ("first", False)
        (tmp_path / "keys").unlink()
        stack.engines.alive[0].exit()
        engine, _ = await started(stack)
        assert sent_key(engine) is None


@pytest.mark.usefixtures("autojump_clock")
async def test_an_inherited_key_is_the_engine_s_unless_it_is_the_gateway_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "inherited")
    async with running_stack(given()) as stack:
        engine, env = await started(stack)
        assert sent_key(engine) == env[VARIABLE] == "inherited"
    async with running_stack(given(secrets=frozenset({VARIABLE}))) as stack:
        engine, env = await started(stack)
        assert sent_key(engine) == env[VARIABLE] != "inherited"


@pytest.mark.usefixtures("autojump_clock")
async def test_a_key_that_no_header_carries_is_told_and_not_sent(tmp_path: Path) -> None:
    async with running_stack(given(env={VARIABLE: "a\r\nX-Evil: 1"})) as stack:
        answer = await stack.post(CHAT, chat())
    assert answer.status == 502
    assert b"no header can carry its key, LLAMA_API_KEY in its `env`" in answer.content


@pytest.mark.usefixtures("autojump_clock")
async def test_engines_inherit_no_key_of_the_gateway_unless_their_variant_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("GATEWAY_KEY", "CLUSTER_KEY", "TRIO_GATEWAY_KEY", "PLAIN", "UNWANTED"):
        monkeypatch.setenv(name, f"the {name}")
    secrets = frozenset({"GATEWAY_KEY", "CLUSTER_KEY"})
    wishes = {"CLUSTER_KEY": True, "UNWANTED": False, "NOT_SET": True}

    async def env_of(configuration: GatewayConfig) -> dict[str, str]:
        async with running_stack(configuration) as stack:
            return (await started(stack))[1]

    env = await env_of(given(secrets=secrets))
    assert not env.keys() & {*secrets, "TRIO_GATEWAY_KEY"}
    assert env["PLAIN"] == "the PLAIN"
    env = await env_of(given(secrets=secrets, inherits=wishes, env={"PLAIN": "own"}))
    assert env["CLUSTER_KEY"] == "the CLUSTER_KEY"
    assert not env.keys() & {"GATEWAY_KEY", "UNWANTED", "NOT_SET"}
    assert env["PLAIN"] == "own"


class Offended:
    """A server that takes no key from its environment, and offence at any that it is sent."""

    def __init__(self, *paths: bytes) -> None:
        self.paths, self.keys_seen = paths, 0

    async def __call__(self, stream: trio.SocketStream) -> None:
        head = await read_request(stream)
        path = head.split()[1]
        refused = b"authorization:" in head.lower() and path in self.paths
        self.keys_seen += refused
        body = b'{"data": [{"id": "its-model"}], "choices": []}'
        status = 401 if refused else 200
        lines = f"HTTP/1.1 {status} So\r\nContent-Type: application/json\r\n"
        await stream.send_all(f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)


@pytest.mark.parametrize("paths", [(b"/health",), (b"/v1/models", b"/v1/chat/completions")])
async def test_a_key_that_was_made_is_withdrawn_if_the_engine_takes_offence(
    paths: tuple[bytes, ...],
) -> None:
    offended = Offended(*paths)
    async with serving(offended) as port:
        options = EngineOptions(api_key=Secret("made"))
        client = kind_of(ENGINE_TYPES["openai"]).client(f"http://127.0.0.1:{port}", options)
        launch = Launch(
            variant(), ENGINE_TYPES["openai"], kind_of(ENGINE_TYPES["openai"]), open_nothing,
            set(), (), None, logging.getLogger(),
        )  # fmt: skip
        launch.key = EngineKey(KeyPlace.MADE, Secret("made"))
        health = await client.check_health(2)
        await client.read_facts(2)
        assert health.refused == 401 or client.key_refused == 401
        assert launch.withdraw_key(client)
        assert not launch.withdraw_key(client)
        assert (await client.check_health(2)).ok
        await client.read_facts(2)
        assert client.key_refused is None
        assert client.served_name == "its-model"
        async with client.forward_request("POST", CHAT, [], b"{}") as exchange:
            assert exchange.status == 200
        assert offended.keys_seen == 1
        await client.aclose()


@pytest.mark.usefixtures("autojump_clock")
async def test_an_engine_that_is_ready_without_a_key_is_used_without_one() -> None:
    async with running_stack(given("openai")) as stack:
        refused = Health(False, "HTTP 401 at /health", refused=401)

        class Client(stack.engines.client_type):  # type: ignore[name-defined, misc]
            async def check_health(self, timeout_s: float) -> Health:
                with_key = bool(self._own_headers)
                return refused if with_key else await super().check_health(timeout_s)

        stack.engines.client_type = Client
        engine, _ = await started(stack)
        assert engine.launch.key.place is KeyPlace.NONE
