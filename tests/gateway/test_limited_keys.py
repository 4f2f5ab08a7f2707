"""A key that is limited to some models, where a model's engine is a site that has others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.asking import error_of
from tests.support.forms import TYPE, form, part
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.server.api.endpoint import Body, Endpoint, Family
from trio_gateway.server.api.endpoints import ENDPOINTS

Clock = trio.testing.MockClock

LIMITED, ALL = "tg-limited-0123456789", "tg-all-0123456789"
KEYS = (
    ApiKey(name="limited", secret=LIMITED, models=frozenset({"there", "here"}), admin=True),
    ApiKey(name="all", secret=ALL, admin=True),
)
CHOOSERS: dict[str, Any] = {
    "models": ["other"], "route": "fallback", "fallbacks": ["other"], "provider": {"order": ["x"]},
    "extra_body": {"model": "other"}, "Models": ["other"], "plugins": [], "preset": "x",
    "tools": [{"type": "image_generation", "model": "other"}],
}  # fmt: skip
CONTENT = {
    "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", "content": "x",
    "query": "x", "tokens": [1], "input_prefix": "x", "documents": ["x"], "max_tokens": 1,
}  # fmt: skip
JSON_ROWS = [
    row
    for row in ENDPOINTS
    if row.needs_engine and row.body in (Body.JSON, Body.FORM_OR_JSON)
    and row.family not in (Family.GATEWAY, Family.OLLAMA)
]  # fmt: skip


@asynccontextmanager
async def serving() -> AsyncIterator[Stack]:
    """A model of a site, and one of this machine; both serve everything."""
    elsewhere = variant(4096, binary="", parallel=8, memory_bytes=0)
    there = model("there", elsewhere, engine=ENGINE_TYPES["remote"], pool="remote")
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=KEYS)
    given = config(there, model("here"), pools={"primary": 1, "remote": 10}, access=access)
    async with running_stack(given) as stack:
        stack.engines.load_s = 0.0
        stack.engines.kind.endpoints |= {row.name for row in ENDPOINTS}
        yield stack


async def post(
    stack: Stack, path: str, body: bytes, key: str = LIMITED, kind: str = "application/json"
) -> Any:
    headers = [("Authorization", f"Bearer {key}"), ("Content-Type", kind)]
    return await stack.http.request("POST", f"http://gateway{path}", headers=headers, content=body)


def body_of(row: Endpoint, name: str, **more: Any) -> bytes:
    content = {n: CONTENT[n] for n in (*row.content, "documents", "max_tokens") if n in CONTENT}
    return json.dumps({"model": name, **content, **more}).encode()


@pytest.mark.parametrize("row", JSON_ROWS, ids=lambda row: row.name)
async def test_fields_that_choose_other_models_do_not_go_to_a_site(
    autojump_clock: Clock, row: Endpoint
) -> None:
    async with serving() as stack:
        path = row.paths[0]
        for field, value in CHOOSERS.items():
            answer = await post(stack, path, body_of(row, "there", **{field: value}))
            error = json.loads(answer.content)["error"]
            assert (answer.status, error["type"]) == (403, "permission_error"), field
            assert f"`{field}" in error["message"]
            if row.family is not Family.ANTHROPIC:
                assert error["code"] == "field_not_allowed"
        assert stack.engines.requests == []
        assert (await post(stack, path, body_of(row, "there"))).status == 200
        assert (await post(stack, path, body_of(row, "there", models=["o"]), ALL)).status == 200
        assert (await post(stack, path, body_of(row, "here", models=["o"]))).status == 200


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/images/edits"])
@pytest.mark.parametrize(
    "field", ["models", "models[]", "fallbacks", "extra_body", "provider[order]"]
)
async def test_nor_do_they_in_a_form(autojump_clock: Clock, path: str, field: str) -> None:
    name, chooser = part("model", b"there"), part(field, b"other")
    file = part("file", b"x" * 3_000_000, '; filename="a.wav"')
    async with serving() as stack:
        for parts in ((name, chooser, file), (chooser, name, file), (name, file, chooser)):
            answer = await post(stack, path, form(*parts), kind=TYPE)
            assert (answer.status, error_of(answer)["code"]) == (403, "field_not_allowed")
            assert error_of(answer)["param"] == field
        assert not any(body.endswith(b"--bound--\r\n") for _, _, body in stack.engines.requests)
        assert (await post(stack, path, form(name, chooser), ALL, TYPE)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "here", "mod\\u0065l": "there", "messages": [{"role": "user"}]}',
        b'{"mod\\u0065l": "here", "model": "there", "messages": [{"role": "user"}]}',
        b'{"model": "here", "messages": [{"role": "user"}], "model": "here"}',
    ],
)
async def test_two_models_are_none_however_they_are_written(
    autojump_clock: Clock, body: bytes
) -> None:
    async with serving() as stack:
        answer = await post(stack, "/v1/chat/completions", body, ALL)
        assert (answer.status, error_of(answer)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("row", JSON_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("name", ["Model", "MODEL", "mod\\u0045l"])
async def test_a_model_in_other_letters_is_a_second_one_to_some_engines(
    autojump_clock: Clock, row: Endpoint, name: str
) -> None:
    body = body_of(row, "here").replace(b"{", b'{"%b": "there", ' % name.encode(), 1)
    async with serving() as stack:
        answer = await post(stack, row.paths[0], body, ALL)
        assert answer.status == 400
        assert "can be read as `model`" in json.loads(answer.content)["error"]["message"]
        assert stack.engines.requests == []


async def test_a_name_with_escapes_is_the_name(autojump_clock: Clock) -> None:
    body = b'{"mod\\u0065l": "there", "mod\\u0065ls": [], "messages": [{"role": "user"}]}'
    async with serving() as stack:
        answer = await post(stack, "/v1/chat/completions", body)
        assert error_of(answer)["param"] == "models"


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed"])
async def test_ollama_s_requests_are_translated_without_such_fields(
    autojump_clock: Clock, path: str
) -> None:
    body = {
        "model": "there",
        **CONTENT,
        "stream": False,
        "models": ["other"],
        "options": {"model": 1},
    }
    async with serving() as stack:
        await post(stack, path, json.dumps(body).encode())
        ((_, _, sent),) = stack.engines.requests
        assert b"other" not in sent


async def test_upstream_is_all_of_a_site(autojump_clock: Clock) -> None:
    async with serving() as stack:
        for key, name, status in (
            (LIMITED, "there", 403),
            (LIMITED, "here", 200),
            (ALL, "there", 200),
        ):
            answer = await post(stack, f"/upstream/{name}/v1/chat/completions", b"{}", key)
            assert answer.status == status
