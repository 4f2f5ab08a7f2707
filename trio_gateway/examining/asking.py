"""Asks one engine what a client would ask: a chat, with tools, with an image; an embedding."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import trio

from trio_gateway.engine.clients.usage import Usage, usage_of_answer, usage_of_stream
from trio_gateway.engine.errors import EngineLost, ExchangeAborted
from trio_gateway.engine.lease import Lease
from trio_gateway.rawjson import decode_or_none

ANSWER_S = 600.0  # a large model on a processor takes minutes
_SAID_MAX = 200  # characters of what an engine says
_JSON = [(b"Content-Type", b"application/json")]
_TAIL_BYTES = 64 * 1024
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

Chat = Sequence[Mapping[str, Any]]


class AskFailed(Exception):
    """The engine did not do what it was asked; the message says why."""


class Answered(msgspec.Struct, frozen=True):
    """`usage` None: it does not say. Its times are the engine's own, or as they were seen."""

    text: str
    usage: Usage | None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Piece(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Event(msgspec.Struct):
    choices: list[_Piece] = []


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str | dict[str, Any] = ""


class _Call(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)


class _Whole(msgspec.Struct):
    choices: list[_Choice] = []


class _Error(msgspec.Struct):
    message: str = ""


class _Refused(msgspec.Struct):
    error: _Error | str = ""
    message: str = ""


def chat_body(model: str, chat: Chat, tokens: int) -> bytes:
    """Of a streamed chat."""
    return msgspec.json.encode(
        {
            "model": model,
            "messages": chat,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


async def ask_chat(lease: Lease, body: bytes) -> Answered:
    """Raises AskFailed."""
    asked_at, first_at, pieces = trio.current_time(), 0.0, list[bytes]()
    with _limited():
        body = lease.client.transform_request("chat/completions", body)
        async with lease.client.forward_request(
            "POST", "/v1/chat/completions", _JSON, body
        ) as exchange:
            while piece := await exchange.receive():
                first_at = first_at or trio.current_time()
                pieces.append(piece)
            status = exchange.status
    ended_at, data = trio.current_time(), b"".join(pieces)
    if status != 200:
        raise AskFailed(_refusal(status, data))
    events = [line[6:] for line in data.splitlines() if line.startswith(b"data: {")]
    texts = [_text_of(event) for event in events]
    if not events or not data.rstrip().endswith(b"[DONE]"):
        raise AskFailed("the stream of its answer broke off")
    usage = usage_of_stream(data[-_TAIL_BYTES:])
    if usage is not None and usage.read_ms is None and usage.made_ms is None:
        usage = msgspec.structs.replace(
            usage,
            read_tokens=usage.prompt_tokens - (usage.cached_tokens or 0),
            read_ms=(first_at - asked_at) * 1000,
            made_ms=(ended_at - first_at) * 1000 or None,
        )
    return Answered("".join(texts), usage)


async def ask_for_tool(lease: Lease, model: str) -> None:
    """Have it call a tool. Raises AskFailed: it does not."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the weather in Paris? Use the tool."}],
        "tools": [_TOOL],
        "tool_choice": "required",
        "max_tokens": 128,
        "temperature": 0,
    }
    try:
        answer = await _ask(lease, "chat/completions", body)
    except AskFailed as error:
        if "tool_choice" not in str(error):
            raise
        answer = await _ask(lease, "chat/completions", {**body, "tool_choice": "auto"})
    whole = decode_or_none(answer, _Whole)
    calls = (whole.choices[0].message.tool_calls if whole and whole.choices else None) or []
    if not any(call.function.name == "get_weather" for call in calls):
        raise AskFailed("it answers without calling the tool")


async def ask_about_image(lease: Lease, model: str) -> None:
    """Have it look at a red square. Raises AskFailed."""
    url = "data:image/png;base64," + base64.b64encode(red_square()).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Which colour is this?"},
    ]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": 32,
        "temperature": 0,
    }
    whole = decode_or_none(await _ask(lease, "chat/completions", body), _Whole)
    message = whole.choices[0].message if whole and whole.choices else _Message()
    if not (message.content or message.reasoning_content):
        raise AskFailed("it says nothing about an image")


async def ask_embedding(lease: Lease, model: str, text: str) -> Answered:
    """Raises AskFailed."""
    asked_at = trio.current_time()
    answer = await _ask(lease, "embeddings", {"model": model, "input": text})
    usage = usage_of_answer(answer)
    if usage is not None and usage.read_ms is None:
        took_ms = (trio.current_time() - asked_at) * 1000
        usage = msgspec.structs.replace(usage, read_tokens=usage.prompt_tokens, read_ms=took_ms)
    return Answered("", usage)


async def ask_ranking(lease: Lease, model: str) -> None:
    """Raises AskFailed."""
    documents = ["A cat sleeps on a warm stone.", "The train is late."]
    await _ask(lease, "rerank", {"model": model, "query": "a cat", "documents": documents})


async def _ask(lease: Lease, endpoint: str, body: dict[str, Any]) -> bytes:
    pieces = list[bytes]()
    with _limited():
        sent = lease.client.transform_request(endpoint, msgspec.json.encode(body))
        async with lease.client.forward_request("POST", f"/v1/{endpoint}", _JSON, sent) as exchange:
            while piece := await exchange.receive():
                pieces.append(piece)
            status = exchange.status
    if status != 200:
        raise AskFailed(_refusal(status, b"".join(pieces)))
    return b"".join(pieces)


@contextmanager
def _limited() -> Iterator[None]:
    """What goes wrong with the engine in the block, as AskFailed."""
    try:
        with trio.fail_after(ANSWER_S):
            yield
    except trio.TooSlowError:
        raise AskFailed(f"no answer within {ANSWER_S:g} s") from None
    except (EngineLost, ExchangeAborted) as error:
        raise AskFailed(str(error)) from None


def _refusal(status: int, data: bytes) -> str:
    found = decode_or_none(data, _Refused)
    said = ""
    if found is not None:
        said = found.error.message if isinstance(found.error, _Error) else found.error
        said = said or found.message
    said = " ".join(said.split())[:_SAID_MAX]
    return f"status {status}{': ' if said else ''}{said}"


def _text_of(event: bytes) -> str:
    found = decode_or_none(event, _Event)
    return "".join(piece.delta.content or "" for piece in found.choices) if found else ""


def red_square(size: int = 64) -> bytes:
    """A PNG."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = (b"\0" + b"\xe0\x10\x10" * size) * size
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", head),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )
