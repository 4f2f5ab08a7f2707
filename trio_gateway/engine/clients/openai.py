"""OpenAIEngine: any server with the OpenAI API. What else it can do is detected, never assumed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.client import NO_OPTIONS, NOT_THERE, EngineClient
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.prompts import count_largest, field
from trio_gateway.rawjson import Members, members, replace_member

log = logging.getLogger(__name__)

MODELS = "/v1/models"
# The engines that answer these count with template, tools and all.
_COUNTING_TARGETS = {
    "chat/completions": "/v1/chat/completions/input_tokens",
    "responses": "/v1/responses/input_tokens",
    "messages": "/v1/messages/count_tokens",
}
_TOKENIZE = "/tokenize"
# What of a chat bears on its prompt, in vLLM's /tokenize.
_PROMPT_FIELDS = (
    "messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt",
    "continue_final_message", "add_special_tokens", "mm_processor_kwargs",
)  # fmt: skip


class OpenAIKind(EngineKind):
    """See EngineKind."""

    endpoints = frozenset(
        {
            "chat/completions", "completions", "embeddings", "responses", "rerank", "realtime",
            "audio/speech", "audio/transcriptions", "audio/translations",
            "images/generations", "images/edits",
        }
    )  # fmt: skip

    def client(self, base_url: str, options: EngineOptions) -> OpenAIEngine:
        return OpenAIEngine(base_url, options)

    def launch_args(self, args: Sequence[str], host: str, port: int) -> list[str]:
        return [a.replace("${PORT}", str(port)) for a in args]

    def listen_host(self, args: EngineArgs) -> str:
        return "127.0.0.1"

    def fixed_address(self, args: EngineArgs) -> tuple[str, int] | None:
        return None  # `connect` says it: each server has options of its own

    def context_cure(
        self, declared: int, args: EngineArgs, facts: EngineFacts, shared_tokens: int | None
    ) -> str:
        return (
            f"raise it to {declared} in the engine's own arguments (vLLM: --max-model-len), or "
            "lower the variant's `context`"
        )


class OpenAIEngine(EngineClient):
    """See EngineClient. `served_name` is what the engine calls the model, None until it said so."""

    health_targets = ("/health", MODELS)

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        super().__init__(base_url, options)
        self.served_name = options.served_name
        self._absent: set[str] = set()  # targets of which the engine said that they are not there

    async def read_facts(self, timeout_s: float) -> EngineFacts:
        answer = await self.ask("GET", MODELS, timeout_s)
        listed = answer.value.get("data") if answer and isinstance(answer.value, dict) else None
        models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        names = [m["id"] for m in models if isinstance(m.get("id"), str)]
        if self.served_name is None and names:
            self.served_name = names[0]
        for model in models:
            if model.get("id") == self.served_name:
                return EngineFacts(context=_context_of(model))
        return EngineFacts()

    # -- requests --------------------------------------------------------------------------------

    def transform_request(
        self, endpoint: str, body: bytes, members: Members | None = None
    ) -> bytes:
        if self.served_name is None:
            return body
        return replace_member(body, "model", msgspec.json.encode(self.served_name), members)

    # -- counting --------------------------------------------------------------------------------

    async def count_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        target = _COUNTING_TARGETS.get(endpoint)
        if target is not None:
            asked = self.transform_request(endpoint, body)
            match await self._ask_if_there(target, asked, timeout_s):
                case {"input_tokens": int(tokens)} if tokens > 0:
                    return tokens
        if endpoint == "chat/completions":
            request = members(body)
            chat = {name: request[name] for name in _PROMPT_FIELDS if name in request}
            return await self._tokenize(chat, timeout_s)
        if endpoint in ("completions", "embeddings"):
            prompts = field(body, "input" if endpoint == "embeddings" else "prompt")
            return await count_largest(prompts, partial(self._count_text, timeout_s=timeout_s))
        return None

    async def _count_text(self, text: str, timeout_s: float) -> int | None:
        return await self._tokenize({"prompt": text}, timeout_s)

    async def _tokenize(self, request: dict[str, Any], timeout_s: float) -> int | None:
        if self.served_name is not None:
            request = {"model": self.served_name, **request}
        body = msgspec.json.encode(request)
        # Others have a /tokenize of their own, without a count: llama-server gives ids of nothing.
        match await self._ask_if_there(_TOKENIZE, body, timeout_s):
            case {"count": int(tokens)} if tokens > 0:
                return tokens
        return None

    async def _ask_if_there(self, target: str, body: bytes, timeout_s: float) -> Any:
        """The decoded answer to a POST if it is 200; None otherwise."""
        if target in self._absent:
            return None
        answer = await self.ask("POST", target, timeout_s, body)
        if answer is None:
            return None
        if answer.status in NOT_THERE:
            self._absent.add(target)
        return answer.value


def _context_of(model: dict[str, Any]) -> int | None:
    """As vLLM and SGLang say it, or as another gateway of ours."""
    for name in ("max_model_len", "context_length"):
        if isinstance(value := model.get(name), int) and value > 0:
            return value
    return None
