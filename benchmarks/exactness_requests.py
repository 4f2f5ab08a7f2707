"""Requests of every size and shape, each with the number of tokens that an engine says it has."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import msgspec

from benchmarks.counter_texts import make_texts
from trio_gateway.models.need.contents import RequestFields

SEED = 4
PROMPT_TOKENS, ANSWER_TOKENS = (1, 12_000), (1, 4096)  # from and to, evenly in the logarithm
LEAST_BLOCK = 100  # characters of a text that others are cut from
CHAT, COMPLETION = "chat/completions", "completions"
TURNS = (1, 1, 1, 2, 3, 5, 10)
# Shares of the requests, or of the chats among them.
WITH_MAXIMUM, COMPLETIONS, WITH_SYSTEM, IN_PARTS, WITH_TOOLS = 0.5, 0.15, 0.3, 0.2, 0.2


class Case(NamedTuple):
    """`truth`: tokens of its prompt; of several prompts, of the largest."""

    endpoint: str
    shape: str
    request: dict[str, Any]
    body: bytes
    fields: RequestFields
    truth: int


def make_cases(client: httpx.Client, count: int) -> list[Case]:
    """The same ones on every run, for one model. `client`: of an engine that counts."""

    def tokens_of(text: str) -> int:
        body = {"content": text, "add_special": True}
        return len(client.post("/tokenize", json=body).raise_for_status().json()["tokens"])

    maker, cases = Maker(tokens_of), list[Case]()
    for _ in range(count):
        endpoint, shape, request = maker.make()
        body = msgspec.json.encode(request)
        if endpoint == CHAT:
            answer = client.post("/v1/chat/completions/input_tokens", content=body)
            truth = int(answer.raise_for_status().json()["input_tokens"])
        else:
            prompt = request["prompt"]
            truth = max(map(tokens_of, [prompt] if isinstance(prompt, str) else prompt))
        fields = msgspec.json.decode(body, type=RequestFields)
        cases.append(Case(endpoint, shape, request, body, fields, truth))
    return cases


class Maker:
    """Makes requests of sizes in tokens; `tokens_of` says how many a text has."""

    def __init__(self, tokens_of: Callable[[str], int]) -> None:
        blocks = [text for text in make_texts() if len(text) >= LEAST_BLOCK]
        self._blocks = [(block, tokens_of(block) / len(block)) for block in blocks]
        self._chance = random.Random(SEED)

    def make(self) -> tuple[str, str, dict[str, Any]]:
        """Endpoint, shape, and the request."""
        chance, request = self._chance, dict[str, Any](model="m")
        tokens = self._log_uniform(*PROMPT_TOKENS)
        if chance.random() < WITH_MAXIMUM:
            key = chance.choice(["max_tokens", "max_tokens", "max_completion_tokens"])
            request[key] = self._log_uniform(*ANSWER_TOKENS)
        if chance.random() < COMPLETIONS:
            request["prompt"] = self._text(tokens)
            if chance.random() < 0.2:
                request["prompt"] = [request["prompt"], self._text(tokens // 2)]
                return COMPLETION, "two prompts", request
            return COMPLETION, "prompt", request
        turns = chance.choice(TURNS)
        messages = self._talk(tokens, turns)
        shape = ["chat" if turns == 1 else f"{turns} turns"]
        if chance.random() < WITH_SYSTEM:
            messages.insert(0, {"role": "system", "content": self._text(chance.randrange(1, 60))})
            shape.append("system")
        if chance.random() < IN_PARTS:
            for message in messages:
                message["content"] = self._parts(message["content"])
            shape.append("parts")
        if chance.random() < WITH_TOOLS:
            request["tools"] = [self._tool(number) for number in range(chance.randrange(1, 5))]
            shape.append("tools")
        return CHAT, ", ".join(shape), {**request, "messages": messages}

    def _talk(self, tokens: int, turns: int) -> list[dict[str, Any]]:
        cuts = sorted(self._chance.randrange(tokens + 1) for _ in range(2 * turns - 2))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, tokens], strict=True)]
        roles = ("user", "assistant")
        return [{"role": roles[n % 2], "content": self._text(s)} for n, s in enumerate(sizes)]

    def _parts(self, text: str) -> list[dict[str, str]]:
        cut = self._chance.randrange(len(text) + 1)
        return [{"type": "text", "text": part} for part in (text[:cut], text[cut:])]

    def _tool(self, number: int) -> dict[str, Any]:
        chance = self._chance
        fields = {
            f"field_{n}": {"type": "string", "description": self._text(chance.randrange(1, 20))}
            for n in range(chance.randrange(1, 6))
        }
        function = {
            "name": f"tool_{number}",
            "description": self._text(chance.randrange(1, 60)),
            "parameters": {"type": "object", "properties": fields, "required": [*fields][:1]},
        }
        return {"type": "function", "function": function}

    def _text(self, tokens: int) -> str:
        block, density = self._chance.choice(self._blocks)
        size, start = round(tokens / density), self._chance.randrange(len(block))
        return (block * (size // len(block) + 2))[start : start + size]

    def _log_uniform(self, least: int, most: int) -> int:
        return round(math.exp(self._chance.uniform(math.log(least), math.log(most))))
