"""A model's name in each of its spellings, at every endpoint that takes one, with keys and without.

Which name means what: tests/models/test_names.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio.testing

from tests.support.forms import TYPE, form, part
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.server.api.endpoints import ENDPOINTS

Clock = trio.testing.MockClock

SMALL, LARGE, ALL = "tg-small-0123456789", "tg-large-0123456789", "tg-all-0123456789"
KEYS = (
    ApiKey(name="small", secret=SMALL, models=frozenset({"qwen3"}), admin=True),
    ApiKey(name="large", secret=LARGE, models=frozenset({"qwen3:8b", "llama3:latest"}), admin=True),
    ApiKey(name="all", secret=ALL, admin=True),
)
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
TO_BODY: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT, "/v1/messages": CHAT, "/v1/messages/count_tokens": CHAT,
    "/v1/completions": {"prompt": "Hi"}, "/completion": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"}, "/v1/embeddings": {"input": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["x"]}, "/tokenize": {"content": "Hi"},
    "/api/chat": {**CHAT, "stream": False}, "/api/embed": {"input": "Hi"}, "/api/show": {},
    "/gateway/explain": CHAT,
}  # fmt: skip
IN_PATH = {
    "GET": (
        "/v1/models/{}", "/models/{}", "/gateway/models/{}", "/upstream/{}/props", "/props?model={}"
    ),
    "POST": (
        "/gateway/models/{}/load", "/gateway/models/{}/pin?pinned=false",
        "/gateway/models/{}/unload", "/upstream/{}/tokenize",
    ),
}  # fmt: skip
SPELLINGS = {
    "qwen3": ("qwen3", "qwen3@4096", "qwen3:small", "qwen3:latest", "qwen3%402048"),
    "qwen3:8b": ("qwen3:8b", "qwen3:8b@4096", "qwen3:8b:latest", "qwen3%3A8b@4096"),
    "llama3:latest": ("llama3", "llama3:latest", "llama3@100"),
}


@asynccontextmanager
async def serving() -> AsyncIterator[Stack]:
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=KEYS)
    given = config(
        model("qwen3", variant(2048, name="small"), variant(8192)),
        model("qwen3:8b", variant(4096)),
        model("llama3:latest", variant(4096)),
        access=access,
        pools={"primary": 3},
    )
    async with running_stack(given) as stack:
        stack.engines.load_s = 0.0
        stack.engines.kind.endpoints |= {row.name for row in ENDPOINTS}
        yield stack


async def status_of(
    stack: Stack, method: str, path: str, key: str, body: bytes = b"", kind: str = "text/json"
) -> int:
    headers = [("Authorization", f"Bearer {key}"), ("Content-Type", kind)]
    url = f"http://gateway{path}"
    answer = await stack.http.request(method, url, headers=headers, content=body)
    return int(answer.status)


@pytest.mark.parametrize(
    ("name", "spelling"), [(name, each) for name in SPELLINGS for each in SPELLINGS[name]]
)
async def test_a_key_has_its_models_and_no_others_however_they_are_written(
    autojump_clock: Clock, name: str, spelling: str
) -> None:
    async with serving() as stack:
        for key in (SMALL, LARGE, ALL):
            allowed = key == ALL or (name == "qwen3") == (key == SMALL)
            expected = 200 if allowed else 403
            by_engine = 502 if allowed else 403  # the fake engine's answer cannot be translated
            for method, paths in IN_PATH.items():
                for path in paths:
                    status = await status_of(stack, method, path.format(spelling), key)
                    assert status == expected, (path, key)
            if "%" in spelling:
                continue
            for path, content in TO_BODY.items():
                body = json.dumps({"model": spelling, **content}).encode()
                status = await status_of(stack, "POST", path, key, body)
                translated = path in ("/api/chat", "/api/embed")
                assert status == (by_engine if translated else expected), (path, key)
            upload = form(part("model", spelling.encode()), part("file", b"x", '; filename="a"'))
            path = "/v1/audio/transcriptions"
            assert await status_of(stack, "POST", path, key, upload, TYPE) == expected


async def test_a_key_is_not_told_what_contexts_another_model_has(autojump_clock: Clock) -> None:
    async with serving() as stack:
        for name in ("qwen3:8b@999999", "qwen3:8b@many", "qwen3:8b:4096"):
            body = json.dumps({"model": name, **CHAT}).encode()
            assert await status_of(stack, "POST", "/v1/chat/completions", SMALL, body) == 403
            assert await status_of(stack, "GET", f"/v1/models/{name}", SMALL) == 403


async def test_the_context_asked_for_is_that_of_the_longest_name(autojump_clock: Clock) -> None:
    async with serving() as stack:
        body = json.dumps({"model": "qwen3:8b@4096", **CHAT}).encode()
        headers = [("Authorization", f"Bearer {ALL}")]
        url = "http://gateway/gateway/explain"
        answer = await stack.http.request("POST", url, headers=headers, content=body)
        explained = json.loads(answer.content)
        assert (explained["model"], explained["variant"]) == ("qwen3:8b", "4096")
