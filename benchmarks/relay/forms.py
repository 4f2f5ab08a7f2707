"""The forms in which a request may come: what it asks, how it is written, and over which wire."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import Any

from trio_gateway.config.key_hash import hash_of, new_key

MODEL = "m"
LONG_MESSAGES, LONG_TOOLS = 60, 20
LONG_BYTES = 100_000


class Wire(enum.Enum):
    TCP = "TCP"
    TLS = "TLS"
    UNIX = "Unix socket"


@dataclass(frozen=True)
class Pace:
    """Of a streamed answer; `rate` is chunks per second, 0: all at once."""

    chunks: int
    rate: int = 0


@dataclass(frozen=True)
class Form:
    """`members`: more of the body; `messages`: those before the last, which is always the same.
    `server`: entries of the gateway's configuration."""

    name: str
    path: str = "/v1/chat/completions"
    messages: tuple[dict[str, str], ...] = ()
    members: dict[str, Any] = field(default_factory=lambda: {"max_tokens": 16})
    key: str = "x"
    wire: Wire = Wire.TCP
    server: dict[str, str] = field(default_factory=dict)

    def request(self, pace: Pace | None = None) -> bytes:
        """Head and body; without a pace, its answer comes in one piece."""
        text = "hello there"
        if pace is not None:
            text += f" [[chunks={pace.chunks} rate={pace.rate}]]"
        body = json.dumps(
            {
                "model": MODEL,
                "stream": pace is not None,
                **self.members,
                "messages": [*self.messages, {"role": "user", "content": text}],
            }
        ).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


SMALL = Form("small chat")


def all_forms() -> list[Form]:
    """All but the small chat, of which they differ in one thing each."""
    plain, hashed = new_key(), new_key()
    keys = {"api_keys": f'{{ "{plain}", {{ name = "hashed", key = "{hash_of(hashed)}" }} }}'}
    return [
        Form("plain key", key=plain, server=keys),
        Form("hashed key", key=hashed, server=keys),
        _long(),
        Form("Ollama /api/chat", path="/api/chat", members={"options": {"num_predict": 16}}),
        Form("Anthropic /v1/messages", path="/v1/messages"),
        Form("over TLS", wire=Wire.TLS),
        Form("over a Unix socket", wire=Wire.UNIX),
    ]


def _long() -> Form:
    """Half of it messages, half of it tools."""
    words = "The quick brown fox jumps over the lazy dog. "

    def filled(size: int) -> str:
        return (words * (size // len(words) + 1))[:size]

    text = filled(LONG_BYTES // 2 // LONG_MESSAGES)
    roles = ("user", "assistant")
    messages = tuple(
        {"role": roles[number % 2], "content": text} for number in range(LONG_MESSAGES - 1)
    )
    arguments = {
        "type": "object",
        "properties": {
            f"argument_{number}": {"type": "string", "description": filled(200)}
            for number in range(8)
        },
    }
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"tool_{number}",
                "description": filled(LONG_BYTES // 2 // LONG_TOOLS - 2_200),
                "parameters": arguments,
            },
        }
        for number in range(LONG_TOOLS)
    ]
    name = f"{LONG_BYTES // 1000} kB chat"
    return Form(name, messages=messages, members={"max_tokens": 16, "tools": tools})
