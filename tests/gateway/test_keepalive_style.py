"""A stream that waits says so in comments, or in events of the API that was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio.testing

from tests.support.asking import DONE, EVENT
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.keepalive import KeepaliveStyle
from trio_gateway.server.api.endpoints import ENDPOINTS

Clock = trio.testing.MockClock

DATA, COMMENT = KeepaliveStyle.DATA, KeepaliveStyle.COMMENT
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "Hi"},
    "/completion": {"prompt": "Hi"},
    "/infill": {"input_prefix": "a"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": CHAT,
}


@asynccontextmanager
async def waiting(style: KeepaliveStyle, *script: bytes | float) -> AsyncIterator[Stack]:
    """An engine that takes 35 s to load, where the first word is sent after 10 s."""
    given = config(
        model("m", variant(load_time_s=60.0)), stream_keepalive_s=10.0, stream_keepalive_style=style
    )
    async with running_stack(given) as stack:
        stack.engines.load_s = 35.0
        stack.engines.kind.endpoints |= {row.name for row in ENDPOINTS}
        stack.engines.scripts = [[*script]]
        yield stack


async def stream(stack: Stack, path: str, headers: dict[str, str] | None = None) -> bytes:
    body = json.dumps({"model": "m", "max_tokens": 5, "stream": True, **BODIES[path]}).encode()
    given = [*(headers or {}).items()]
    url = f"http://gateway{path}"
    async with stack.http.stream("POST", url, content=body, headers=given) as response:
        assert response.status == 200
        return b"".join([piece async for piece in response.aiter_stream()])


def split(answer: bytes) -> list[tuple[str | None, dict[str, Any]]]:
    """Each event's name and data; there is nothing else in it."""
    found = []
    for event in answer.decode().split("\n\n")[:-1]:
        *names, data = event.split("\n")
        assert data.startswith("data: "), event
        assert all(name.startswith("event: ") for name in names), event
        name = names[0].removeprefix("event: ") if names else None
        found.append((name, json.loads(data.removeprefix("data: "))))
    return found


async def kept_alive(path: str) -> list[tuple[str | None, dict[str, Any]]]:
    async with waiting(DATA, EVENT) as stack:
        *events, last = split(await stream(stack, path))
        assert last[1] == json.loads(EVENT.removeprefix(b"data: "))
        assert len(events) == 3
        return events


async def test_a_chat_gets_chunks_with_nothing_in_them(autojump_clock: Clock) -> None:
    for name, chunk in await kept_alive("/v1/chat/completions"):
        assert name is None
        assert chunk["id"].startswith("chatcmpl-")
        assert (chunk["object"], chunk["model"]) == ("chat.completion.chunk", "m")
        assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]


async def test_a_completion_gets_chunks_without_text(autojump_clock: Clock) -> None:
    for name, chunk in await kept_alive("/v1/completions"):
        assert (name, chunk["object"]) == (None, "text_completion")
        assert chunk["choices"][0]["text"] == ""
        assert chunk["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("path", ["/completion", "/infill"])
async def test_llama_cpps_own_gets_what_its_server_sends(autojump_clock: Clock, path: str) -> None:
    for name, chunk in await kept_alive(path):
        assert (name, chunk["content"], chunk["stop"]) == (None, "", False)


async def test_the_messages_api_gets_its_pings(autojump_clock: Clock) -> None:
    assert await kept_alive("/v1/messages") == [("ping", {"type": "ping"})] * 3


async def test_the_responses_api_gets_a_response_that_begins_and_keeps_its_id(
    autojump_clock: Clock,
) -> None:
    def event(kind: str, **response: str) -> bytes:
        value = {"type": kind, "response": {"id": "resp_engine", "model": "m", **response}}
        return f"event: {kind}\ndata: {json.dumps(value)}\n\n".encode()

    begins, text = event("response.created"), b'event: x\ndata: {"delta": "resp_engine"}\n\n'
    ends = event("response.completed", status="completed")
    async with waiting(DATA, begins[:60], 1.0, begins[60:] + text[:20], text[20:], ends) as stack:
        events = split(await stream(stack, "/v1/responses"))
    kinds = [name for name, _ in events]
    assert kinds == [
        "response.created", "response.in_progress", "response.in_progress",
        "response.created", "x", "response.completed",
    ]  # fmt: skip
    ids = {data["response"]["id"] for _, data in events if "response" in data}
    assert len(ids) == 1
    assert ids != {"resp_engine"}
    assert [data["sequence_number"] for _, data in events[:3]] == [0, 1, 2]


async def test_a_client_asks_for_the_style_that_it_wants(autojump_clock: Clock) -> None:
    path, header = "/v1/chat/completions", "X-Gateway-Keepalive"
    async with waiting(COMMENT, EVENT, DONE) as stack:
        assert b": waits" not in await stream(stack, path, {header: "Data"})
    async with waiting(COMMENT, EVENT, DONE) as stack:
        assert (await stream(stack, path)).startswith(b": waits for m to load")
    async with waiting(DATA, EVENT, DONE) as stack:
        assert (await stream(stack, path, {header: "comment"})).startswith(b": waits for m to load")
        refused = await stack.post(path, json.dumps({"model": "m", **CHAT}).encode(), {header: "x"})
        error = json.loads(refused.content)["error"]
        assert (refused.status, error["code"]) == (400, "invalid_keepalive")


async def test_an_error_is_the_last_event_as_well(autojump_clock: Clock) -> None:
    async with waiting(DATA) as stack:
        stack.engines.statuses = [500]
        *events, (_, last) = split(await stream(stack, "/v1/chat/completions"))
        assert len(events) == 3
        assert "error" in last


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_an_ollama_client_gets_lines_in_either_style(
    autojump_clock: Clock, path: str
) -> None:
    answers = []
    for style in KeepaliveStyle:
        async with waiting(style, EVENT, DONE) as stack:
            body = json.dumps({"model": "m", "prompt": "x", **CHAT}).encode()
            answers.append((await stack.post(path, body)).content.split(b"\n"))
    waits = [[*map(json.loads, filter(None, lines))][:3] for lines in answers]
    for line in (line for lines in waits for line in lines):
        assert line["done"] is False
        assert (line["message"]["content"] if "message" in line else line["response"]) == ""
