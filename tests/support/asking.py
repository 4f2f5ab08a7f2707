"""Requests to a gateway in memory (tests/support/stack.py), and what their answers say."""

from __future__ import annotations

import json
from typing import Any

import httpcore
import trio.testing

from tests.support.stack import Stack

Clock = trio.testing.MockClock  # each test takes `autojump_clock`: an hour passes at once

CHAT = "/v1/chat/completions"
EVENT = b'data: {"choices":[{"delta":{"content":"tok"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def chat(name: str = "m", **fields: Any) -> bytes:
    messages = [{"role": "user", "content": "Hi"}]
    return json.dumps({"model": name, "messages": messages, "max_tokens": 8, **fields}).encode()


def error_of(response: httpcore.Response) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(response.content)["error"]
    assert set(error) - {"engine_output"} == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


def header(response: httpcore.Response, name: str) -> str:
    return next(v.decode() for k, v in response.headers if k.decode().lower() == name.lower())


async def read_all(response: httpcore.Response) -> bytes:
    return b"".join([piece async for piece in response.aiter_stream()])


async def stream(stack: Stack, body: bytes, path: str = CHAT) -> bytes:
    async with stack.http.stream("POST", f"http://gateway{path}", content=body) as response:
        return await read_all(response)
