"""What test_client_litellm.py runs: litellm_client.py BASE_URL."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import litellm
import pytest

MESSAGES = [{"role": "user", "content": "Name the capital city of France."}]
base_url = sys.argv[1]
common: dict[str, Any] = {"api_base": base_url, "api_key": "none", "num_retries": 0}
chat: dict[str, Any] = {**common, "messages": MESSAGES, "temperature": 0, "max_tokens": 16}

# `openai/NAME`: an OpenAI-compatible server, and the name that it knows.
answer = litellm.completion(model="openai/smollm2", **chat)
assert "Paris" in answer.choices[0].message.content
assert answer.usage.completion_tokens > 3

pieces = list(litellm.completion(model="openai/smollm2", stream=True, **chat))
assert "Paris" in "".join(p.choices[0].delta.content or "" for p in pieces)
assert len(pieces) > 3

vectors = litellm.embedding(model="openai/embedder", input=["a cat", "a kitten"], **common)
assert [len(v["embedding"]) for v in vectors.data] == [576] * 2


async def ask() -> str:
    stream = await litellm.acompletion(model="openai/smollm2", stream=True, **chat)
    return "".join([p.choices[0].delta.content or "" async for p in stream])


assert "Paris" in asyncio.run(ask())

# The same through Anthropic's API.
message = litellm.completion(
    model="anthropic/smollm2", **{**chat, "api_base": base_url.removesuffix("/v1")}
)
assert "Paris" in message.choices[0].message.content

with pytest.raises(litellm.NotFoundError, match="did you mean"):
    litellm.completion(model="openai/smolm", **chat)

long = [{"role": "user", "content": "word " * 5000}]
with pytest.raises(litellm.ContextWindowExceededError):
    litellm.completion(model="openai/smollm2", **{**chat, "messages": long})

print("all done")
