"""A body that begins with a byte order mark, as files of Windows' do, means the same without it."""

from __future__ import annotations

import json
from codecs import BOM_UTF8

import pytest
import trio.testing

from tests.support.schema_values import config, model
from tests.support.stack import running_stack
from trio_gateway.server.api.endpoints import ENDPOINTS

Clock = trio.testing.MockClock

CHAT = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'
BODIES = {
    "/v1/chat/completions": CHAT, "/v1/messages": CHAT, "/apply-template": CHAT,
    "/v1/messages/count_tokens": CHAT, "/completion": b'{"prompt": "Hi"}',
    "/v1/responses": b'{"model": "m", "input": "Hi"}', "/infill": b'{"input_prefix": "Hi"}',
    "/v1/embeddings": b'{"model": "m", "input": "Hi"}', "/completions": b'{"prompt": "Hi"}',
    "/v1/images/generations": b'{"model": "m", "prompt": "Hi"}',
}  # fmt: skip


@pytest.mark.parametrize("path", BODIES)
async def test_an_engine_gets_the_body_without_it(autojump_clock: Clock, path: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 0.0
        stack.engines.kind.endpoints |= {row.name for row in ENDPOINTS}
        assert (await stack.post(path, BOM_UTF8 + BODIES[path])).status == 200
        assert stack.engines.requests[-1][2] == BODIES[path]


async def test_what_the_gateway_answers_itself_is_read_so_too(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        assert (await stack.post("/gateway/explain", BOM_UTF8 + CHAT)).status == 200
        assert (await stack.post("/api/show", BOM_UTF8 + b'{"model": "m"}')).status == 200
        loads = BOM_UTF8 + b'{"model": "m", "messages": []}'
        assert (await stack.post("/api/chat", loads)).status == 200
        for body in (BOM_UTF8, BOM_UTF8 * 2 + CHAT, BOM_UTF8[:2] + CHAT):
            answer = await stack.post("/v1/chat/completions", body)
            assert json.loads(answer.content)["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/gateway/explain"])
async def test_one_of_utf_16_is_told_as_such(autojump_clock: Clock, path: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        for written in ("utf-16", "utf-16-be"):
            body = (CHAT if written == "utf-16" else b"\xef\xbb\xbf" + CHAT).decode()
            answer = await stack.post(path, body.encode(written))
            assert answer.status == 400
            assert b"send it in UTF-8" in answer.content


async def test_what_is_passed_through_keeps_it(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        assert (await stack.post("/upstream/m/x", BOM_UTF8 + CHAT)).status == 200
        assert stack.engines.requests[-1][2] == BOM_UTF8 + CHAT


@pytest.mark.processes
async def test_a_large_body_is_read_so_too() -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 0.0
        large = CHAT[:-1] + b', "x": "%b"}' % (b" " * 1_200_000)
        assert (await stack.post("/v1/chat/completions", BOM_UTF8 + large)).status == 200
        assert stack.engines.requests[-1][2] == large
