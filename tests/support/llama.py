"""A small llama-server over a real socket, the client of ours that asks it, and what it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
import trio.testing

from tests.support.sockets import read_request, serving
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine

NOT_FOUND = (404, {"error": {"code": 404, "message": "File Not Found"}})
CHAT_BODY = msgspec.json.encode({"messages": [{"role": "user", "content": "one two"}]})


class Llama:
    """Answers each path with its status and body; /tokenize makes a token of each word."""

    def __init__(self, answers: Mapping[str, tuple[int, Any]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[str] = []
        self.bodies: list[bytes] = []

    async def __call__(self, stream: trio.SocketStream) -> None:
        request = await read_request(stream)
        head, _, body = request.partition(b"\r\n\r\n")
        path = head.split()[1].decode()
        self.asked.append(path)
        self.bodies.append(body)
        status, answer = self.answers.get(path, NOT_FOUND)
        if path == "/tokenize" and path not in self.answers:
            words = msgspec.json.decode(body)["content"].split()
            status, answer = 200, {"tokens": [*range(len(words))]}
        encoded = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        start = f"HTTP/1.1 {status} So\r\nContent-Length: {len(encoded)}\r\n\r\n"
        await stream.send_all(start.encode() + encoded)


@asynccontextmanager
async def engine(handler: Any) -> AsyncIterator[LlamaCppEngine]:
    async with serving(handler) as port:
        client = LlamaCppEngine(f"http://127.0.0.1:{port}")
        try:
            yield client
        finally:
            await client.aclose()


def exceeded(tokens: int, context: int) -> bytes:
    """As llama-server says it."""
    error = {
        "code": 400,
        "message": f"request ({tokens} tokens) exceeds the available context size ({context})",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": context,
    }
    return json.dumps({"error": error}).encode()


def answered(prompt_tokens: int, completion_tokens: int = 5) -> bytes:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return json.dumps({"choices": [], "usage": usage}).encode()
