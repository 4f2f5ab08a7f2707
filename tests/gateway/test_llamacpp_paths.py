"""llama.cpp's own paths: which form an answer has there, and which engine is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.asking import Clock, chat, error_of
from tests.support.fakes import FakeKind
from tests.support.reading import read_here
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.schema import KvCarryoverConfig
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.engine.clients.openai import OpenAIKind

PARTS = {"prompt_string": "Hi", "multimodal_data": []}
LONG = "word " * 300_000


@pytest.fixture(autouse=True)
def _as_llama_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeKind, "endpoints", LlamaCppKind.endpoints)


def asked(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def targets(stack: Stack) -> list[str]:
    return [target for target, _, _ in stack.engines.requests]


# -- /completions and /embeddings -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fields", "target"),
    [
        ("/completions", {"model": "m", "prompt": "Hi"}, "/v1/completions"),
        ("/completions", {"model": "m", "prompt": "Hi", "max_tokens": 3}, "/v1/completions"),
        ("/completions", {"model": "m", "prompt": "Hi", "n_predict": 3}, "/completion"),
        ("/completions", {"model": "m", "prompt": PARTS}, "/completion"),
        ("/completions", {"prompt": "Hi"}, "/completion"),
        ("/v1/completions", {"model": "m", "prompt": "Hi", "n_predict": 3}, "/v1/completions"),
        ("/v1/completions", {"model": "m", "prompt": PARTS}, "/v1/completions"),
        ("/completion", {"model": "m", "prompt": "Hi", "max_tokens": 3}, "/completion"),
        ("/embeddings", {"model": "m", "input": "Hi"}, "/v1/embeddings"),
        ("/embeddings", {"model": "m", "content": "Hi"}, "/embedding"),
        ("/embeddings", {"input": "Hi"}, "/embedding"),
        ("/v1/embeddings", {"model": "m", "input": "Hi", "embd_normalize": 2}, "/v1/embeddings"),
        ("/embedding", {"model": "m", "input": "Hi"}, "/embedding"),
    ],
)
async def test_without_v1_the_body_s_form_is_the_answer_s(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    fields: dict[str, Any],
    target: str,
) -> None:
    read_here(monkeypatch)
    async with running_stack(config(model("m", variant(600_000)))) as stack:
        assert (await stack.post(path, asked(**fields))).status == 200
        # One that is read elsewhere has the same form.
        assert (await stack.post(path, asked(**fields, user=LONG))).status == 200
        assert targets(stack) == [target, target]
        assert [json.loads(body)["model"] for *_, body in stack.engines.requests if b"model" in body
                ] == ["m"] * (2 if "model" in fields else 0)  # fmt: skip


async def test_a_model_with_a_vector_for_each_token_has_only_llama_cpp_s_form(
    autojump_clock: Clock,
) -> None:
    subject = model("m", variant(gives_token_vectors=True))
    async with running_stack(config(subject)) as stack:
        await stack.post("/embeddings", asked(model="m", input="Hi"))
        await stack.post("/v1/embeddings", asked(model="m", input="Hi"))
        assert targets(stack) == ["/embedding", "/v1/embeddings"]


async def test_engines_that_are_not_llama_cpp_s_have_only_openai_s_form(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeKind, "endpoints", OpenAIKind.endpoints)
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.post("/completions", asked(model="m", prompt="Hi", n_predict=3))
        assert (answer.status, targets(stack)) == (200, ["/v1/completions"])
        answer = await stack.post("/completions", asked(prompt="Hi"))
        assert error_of(answer)["code"] == "missing_model"


async def test_whose_form_it_is_changes_nothing_about_whose_model_it_is(
    autojump_clock: Clock,
) -> None:
    async with running_stack(config(model("m"), model("n"))) as stack:
        for path in ("/completions", "/embeddings"):
            for body in (asked(prompt="Hi", content="x"), asked(model="x", content="", prompt="")):
                answer = await stack.post(path, body)
                assert (answer.status, error_of(answer)["code"]) == (404, "model_not_found")


# -- which engine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/props", "/slots", "/lora-adapters"])
async def test_the_only_model_that_runs_is_asked(autojump_clock: Clock, path: str) -> None:
    pools = {"primary": 2, "secondary": 1}
    async with running_stack(config(model("m"), model("n"), pools=pools)) as stack:
        answer = await stack.get(path)
        assert (answer.status, error_of(answer)["code"]) == (404, "model_not_found")
        assert "none of them runs; name one with ?model=" in error_of(answer)["message"]
        await stack.post("/v1/chat/completions", chat("n"))
        assert (await stack.get(path)).status == 200
        assert (await stack.get(f"{path}?model=m")).status == 200  # which gets an engine for it
        assert targets(stack)[1:] == [path, path]
        assert "several of them run" in error_of(await stack.get(path))["message"]


async def test_a_model_that_a_key_may_not_use_is_none_that_runs_for_it(
    autojump_clock: Clock,
) -> None:
    keys = (
        ApiKey(name="one", secret="tg-one-0123456789", models=frozenset({"m"})),
        ApiKey(name="all", secret="tg-all-0123456789"),
    )
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=keys)
    async with running_stack(config(model("m"), model("n"), access=access)) as stack:

        async def ask(key: str) -> int:
            headers = [("Authorization", f"Bearer tg-{key}-0123456789")]
            url = "http://gateway/lora-adapters"
            return (await stack.http.request("GET", url, headers=headers)).status

        await stack.post(
            "/v1/chat/completions", chat("n"), {"Authorization": "Bearer tg-all-0123456789"}
        )
        assert (await ask("one"), await ask("all")) == (404, 200)


# -- /lora-adapters, /slots/N, /v1/health ---------------------------------------------------------


async def test_lora_scales_are_set_as_at_the_engine(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        body = b'[{"id": 0, "scale": 0.5}]'
        assert (await stack.post("/lora-adapters", body)).status == 200
        assert (await stack.post("/lora-adapters?model=m", b"[]")).status == 200
        sent = [(target, body) for target, _, body in stack.engines.requests]
        assert sent == [("/lora-adapters", body), ("/lora-adapters", b"[]")]
        for wrong in (b"{}", b"", b"[1]", b"nonsense"):
            answer = await stack.post("/lora-adapters", wrong)
            assert (answer.status, error_of(answer)["code"]) == (400, "invalid_json")


async def test_lora_scales_are_an_admin_s_to_change(autojump_clock: Clock) -> None:
    keys = tuple(
        ApiKey(name=name, secret=f"tg-{name}-0123456789", admin=name == "admin")
        for name in ("admin", "user")
    )
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=keys)
    async with running_stack(config(model("m"), access=access)) as stack:

        async def post(key: str) -> int:
            given = {"Authorization": f"Bearer tg-{key}-0123456789"}
            return (await stack.post("/lora-adapters", b"[]", given)).status

        assert (await post("user"), await post("admin")) == (403, 200)


@pytest.mark.parametrize("body", [b'{"filename": "a.bin"}', b'{"filename":"a.bin","model":"m"}'])
async def test_a_slot_is_saved_as_at_the_engine(autojump_clock: Clock, body: bytes) -> None:
    async with running_stack(config(model("m"))) as stack:
        assert (await stack.post("/slots/0?action=save", body)).status == 200
        assert (await stack.post("/slots/12?action=erase&model=m", b"")).status == 200
        sent = [(target, body) for target, _, body in stack.engines.requests]
        assert sent == [("/slots/0?action=save", body), ("/slots/12?action=erase", b"{}")]


async def test_the_model_of_a_slot_may_be_named_in_the_body(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), model("n"))) as stack:
        for path, body in (
            ("/slots/0?action=erase&model=n", b""),
            ("/slots/0?action=erase", b'{"model": "n"}'),
        ):
            assert (await stack.post(path, body)).status == 200
        assert [e.model for e in stack.manager.overview.loaded()] == ["n"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/slots/x?action=save", b"{}", 400, "invalid_parameter"),
        ("/slots/-1?action=save", b"{}", 400, "invalid_parameter"),
        ("/slots/0", b"{}", 400, "invalid_parameter"),
        ("/slots/0?action=sav", b"{}", 400, "invalid_parameter"),
        ("/slots/0?action=save", b'{"filename": "../a"}', 400, "invalid_filename"),
        ("/slots/0?action=save", b'{"filename": "a", "filename": "/b"}', 400, "invalid_filename"),
        ("/slots/0?action=save&model=x", b"{}", 404, "model_not_found"),
    ],
)
async def test_a_wrong_slot_action_reaches_no_engine(
    autojump_clock: Clock, path: str, body: bytes, status: int, code: str
) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.post(path, body)
        assert (answer.status, error_of(answer)["code"]) == (status, code)
        assert not stack.engines.processes


async def test_the_slots_that_the_gateway_saves_are_its_own(
    autojump_clock: Clock, tmp_path: Any
) -> None:
    carried = KvCarryoverConfig(directory=tmp_path)
    async with running_stack(config(model("m"), kv_carryover=carried)) as stack:
        answer = await stack.post("/slots/0?action=erase", b"")
        assert (answer.status, error_of(answer)["code"]) == (403, "slots_in_use")


async def test_a_llama_cpp_client_finds_the_gateway_healthy(autojump_clock: Clock) -> None:
    access = AccessConfig(
        allowed_hosts=("gateway",), api_keys=(ApiKey(name="a", secret="tg-a-0123456789abc"),)
    )
    async with running_stack(config(model("m"), access=access)) as stack:
        for path in ("/health", "/v1/health"):  # as at a llama-server, without a key
            answer = await stack.get(path)
            assert (answer.status, json.loads(answer.content)) == (200, {"status": "ok"})
