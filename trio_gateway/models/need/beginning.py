"""How a request begins: what all requests of one conversation have in common. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from trio_gateway.models.need.contents import RequestFields, text_of_prompt
from trio_gateway.models.need.outline import SYSTEM, TOOL, Outline, message_digest

# Of a prompt without messages: nothing in it tells where its first turn ends. While one is shorter
# than this, its next request begins in another way; as little as this is soon read again.
PROMPT_CHARACTERS = 1024
PROMPT_IDS = 256


class Beginning(NamedTuple):
    """As digests. `system`: what comes before the first turn; `turn`: that one, or how a prompt
    begins that has none."""

    system: bytes
    turn: bytes


def beginning_of(kind: str, fields: RequestFields) -> Beginning | None:
    """None: nothing in it tells a conversation.

    Raises:
        RecursionError: nested deeper than any JSON that an engine reads.
    """
    if kind == "chat/completions":
        return _of_messages(fields.messages)
    return _of_prompt(fields.prompt) if kind == "completions" else None


def beginning_of_outline(outline: Outline) -> Beginning | None:
    """The same, of a chat that was read elsewhere."""
    system: list[bytes] = []
    for part in outline.parts:
        if part.kind in SYSTEM:
            system.append(part.digest)
        elif part.kind != TOOL:
            return Beginning(b"".join(system), part.digest)
    return None


def _of_messages(messages: Any) -> Beginning | None:
    system: list[bytes] = []
    for message in messages if isinstance(messages, list) else ():
        digest = message_digest(message)
        if not (isinstance(message, dict) and message.get("role") in SYSTEM):
            return Beginning(b"".join(system), digest)
        system.append(digest)
    return None


def _of_prompt(prompt: Any) -> Beginning | None:
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, dict):
        prompt = text_of_prompt(prompt)
    if isinstance(prompt, str) and prompt:
        start = prompt[:PROMPT_CHARACTERS].encode("utf-8", "surrogatepass")
    elif isinstance(prompt, list) and prompt:
        start = msgspec.json.encode(prompt[:PROMPT_IDS])
    else:
        return None
    return Beginning(b"", hashlib.blake2b(start, digest_size=8).digest())
