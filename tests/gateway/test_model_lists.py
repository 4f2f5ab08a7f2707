"""What the lists of models say, in each API's words: contexts, files, states, capabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, Clock, chat
from tests.support.gguf_files import write_bpe
from tests.support.optional import client_package
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.clients.facts import EngineFacts

ANTHROPIC = {"anthropic-version": "2023-06-01"}


async def get(stack: Stack, path: str, headers: Mapping[str, str] | None = None) -> Any:
    given = [*headers.items()] if headers else None
    answer = await stack.http.request("GET", f"http://gateway{path}", headers=given)
    assert answer.status == 200, answer.content
    return json.loads(answer.content)


async def entry(stack: Stack, name: str = "m", path: str = "/v1/models") -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in (await get(stack, path))["data"] if m["id"] == name)
    return found


def on_file(folder: Path, *args: str, **fields: Any) -> GatewayConfig:
    write_bpe(folder, template="{{ messages }}")
    (folder / "tools.jinja").write_text("{% if tools %}{{ enable_thinking }}{% endif %}")
    largest = variant(8192, args=("-m", "m.gguf", *args), workdir=folder)
    return config(model("m", variant(2048), largest, **fields))


@pytest.mark.processes
async def test_what_a_file_says_is_in_every_list(tmp_path: Path) -> None:
    async with running_stack(on_file(tmp_path, "--chat-template-file", "tools.jinja")) as stack:
        one = await entry(stack)
        assert one["capabilities"] == ["completion", "tools", "thinking"]
        assert one["architecture"] == {"input_modalities": ["text"], "output_modalities": ["text"]}
        assert (one["max_model_len"], one["context_length"]) == (8192, 8192)
        assert one["meta"]["n_ctx"] == 8192
        assert one["meta"]["n_vocab"] > 0
        assert "n_params" not in one["meta"]  # the file has no tensors
        assert one["status"] == {"value": "unloaded"}
        for path in ("/v1/models/m", "/models/m", "/models/m:latest"):
            assert await get(stack, path) == one
        assert await entry(stack, path="/models") == one

        (tag,) = (await get(stack, "/api/tags"))["models"]
        shown = json.loads((await stack.post("/api/show", b'{"model": "m"}')).content)
        for told in (tag, shown):
            assert told["capabilities"] == ["completion", "tools", "thinking"]
            for name in ("max_model_len", "context_length", "meta", "status"):
                assert told[name] == one[name], name

        (listed,) = (await get(stack, "/v1/models", ANTHROPIC))["data"]
        assert await get(stack, "/v1/models/m", ANTHROPIC) == listed
        assert {name: listed[name] for name in ("max_model_len", "meta", "status")} == {
            name: one[name] for name in ("max_model_len", "meta", "status")
        }


def model_info(told: Any) -> Any:
    """As Anthropic's client reads it."""
    return client_package("anthropic").types.ModelInfo.model_validate(told)


async def test_anthropic_s_clients_read_the_list_in_their_words(
    autojump_clock: Clock, tmp_path: Path
) -> None:
    async with running_stack(config(model("m", variant(8192)))) as stack:
        info = model_info(await get(stack, "/v1/models/m", ANTHROPIC))
        assert (info.id, info.display_name, info.type) == ("m", "m", "model")
        assert (info.max_input_tokens, info.lifecycle) == (8192, "active")
        assert info.capabilities is None  # nobody knows


@pytest.mark.processes
async def test_their_capabilities_are_objects(tmp_path: Path) -> None:
    subject = on_file(tmp_path, "--chat-template-file", "tools.jinja", "--mmproj", "p.gguf")
    async with running_stack(subject) as stack:
        told = await get(stack, "/v1/models/m", ANTHROPIC)
        capabilities = model_info(told).capabilities
        assert capabilities is not None
        assert capabilities.image_input.supported
        assert capabilities.thinking.types.enabled.supported
        assert not capabilities.batch.supported
        assert told["capabilities"]["tools"] == {"supported": True}


async def test_anthropic_s_list_comes_in_pages(autojump_clock: Clock) -> None:
    async with running_stack(config(*map(model, "abcde"))) as stack:

        async def page(query: str) -> tuple[str, bool]:
            told = await get(stack, f"/v1/models{query}", ANTHROPIC)
            names = "".join(one["id"] for one in told["data"])
            ends = (names[0], names[-1]) if names else (None, None)
            assert (told["first_id"], told["last_id"]) == ends
            return names, told["has_more"]

        assert await page("") == ("abcde", False)
        assert await page("?limit=1000") == ("abcde", False)
        assert await page("?limit=2") == ("ab", True)
        assert await page("?limit=2&after_id=b") == ("cd", True)
        assert await page("?limit=2&after_id=d") == ("e", False)
        assert await page("?after_id=e") == ("", False)
        assert await page("?limit=2&before_id=e") == ("cd", True)
        assert await page("?limit=3&before_id=c") == ("ab", False)
        assert await page("?before_id=a") == ("", False)
        for wrong in ("limit=0", "limit=-1", "limit=x", "limit=", "after_id=z", "before_id=z"):
            url = f"http://gateway/v1/models?{wrong}"
            answer = await stack.http.request("GET", url, headers=[*ANTHROPIC.items()])
            assert answer.status == 400
            assert json.loads(answer.content)["error"]["type"] == "invalid_request_error"
        assert len((await get(stack, "/v1/models?limit=2"))["data"]) == 5  # OpenAI has no pages


async def test_states_are_those_of_llama_cpp_s_router(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), model("n"))) as stack:
        stack.engines.load_s = 10.0
        assert (await entry(stack))["status"] == {"value": "unloaded"}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stack.post, CHAT, chat())
            await trio.sleep(5)
            assert (await entry(stack))["status"] == {"value": "loading"}
        one = await entry(stack)
        assert (one["status"], one["loaded"]) == ({"value": "loaded"}, True)
        await stack.post(CHAT, chat("n"))
        assert (await entry(stack))["status"] == {"value": "unloaded"}


async def test_a_model_that_failed_says_so_until_it_is_loaded(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 10.0

        async def crash() -> None:
            await trio.sleep(5)
            for process in stack.engines.alive:
                process.exit()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            assert (await stack.post(CHAT, chat())).status == 502
        assert (await entry(stack))["status"] == {"value": "unloaded", "failed": True}
        await trio.sleep(60)
        assert (await stack.post(CHAT, chat())).status == 200
        assert (await entry(stack))["status"] == {"value": "loaded"}


async def test_the_context_is_what_the_engine_really_gives(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m", variant(8192)))) as stack:
        stack.engines.facts = EngineFacts(slots=1, context=4096)
        await stack.post(CHAT, chat())
        one = await entry(stack)
        assert (one["context_length"], one["max_model_len"]) == (4096, 4096)
        assert one["meta"] == {"n_ctx": 4096}


async def test_what_an_engine_says_of_its_model_is_remembered(autojump_clock: Clock) -> None:
    """Of one that it downloads there is no file here."""
    downloaded = model("m", variant(args=("-hf", "org/model")))
    async with running_stack(config(downloaded, model("n"))) as stack:
        assert "capabilities" not in await entry(stack)
        stack.engines.facts = EngineFacts(template="{{ tools }}", media=frozenset({"vision"}))
        await stack.post(CHAT, chat())
        assert (await entry(stack))["capabilities"] == ["completion", "tools", "vision"]
        await stack.post(CHAT, chat("n"))
        one = await entry(stack)
        assert one["status"] == {"value": "unloaded"}
        assert one["capabilities"] == ["completion", "tools", "vision"]


@pytest.mark.parametrize("kind", ["openai", "remote"])
async def test_of_engines_elsewhere_nothing_is_invented(autojump_clock: Clock, kind: str) -> None:
    given = model("m", variant(8192), engine=ENGINE_TYPES[kind])
    async with running_stack(config(given)) as stack:
        one = await entry(stack)
        assert (one["meta"], one["status"]) == ({"n_ctx": 8192}, {"value": "unloaded"})
        assert not {"capabilities", "architecture"} & set(one)
        (tag,) = (await get(stack, "/api/tags"))["models"]
        assert "capabilities" not in tag


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/api/tags"])
async def test_a_key_sees_its_models_only(autojump_clock: Clock, path: str) -> None:
    key = ApiKey(name="one", secret="tg-one-0123456789", models=frozenset({"m"}))
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=(key,))
    async with running_stack(config(model("m"), model("n"), access=access)) as stack:
        for more in ({}, ANTHROPIC):
            told = await get(stack, path, {"Authorization": "Bearer tg-one-0123456789", **more})
            names = [m.get("id", m.get("name")) for m in told.get("data", told.get("models"))]
            assert names == ["m"]


async def test_neither_paths_nor_arguments_are_told(autojump_clock: Clock) -> None:
    args = ("-m", "/secret/m.gguf", "--api-key", "secret", "--mmproj", "/secret/p")
    given = model("m", variant(args=args))
    async with running_stack(config(given)) as stack:
        for path in ("/v1/models", "/models", "/api/tags", "/v1/models/m"):
            for headers in ({}, ANTHROPIC):
                assert "secret" not in json.dumps(await get(stack, path, headers))
