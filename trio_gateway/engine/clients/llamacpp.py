"""LlamaCppEngine: a llama-server. Capabilities are detected: builds differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from trio_gateway.config.engine_args import CONTEXT_STEP, EngineArgs, swa_full
from trio_gateway.config.remarks import no_carryover
from trio_gateway.config.schema import EngineOptions, VariantConfig
from trio_gateway.config.server_options import (
    API_PREFIX,
    CACHE_RAM,
    HOST,
    PORT,
    SLOT_SAVE_PATH,
    UNIFIED_KV,
)
from trio_gateway.engine.clients.client import NO_OPTIONS, NOT_THERE, EngineClient
from trio_gateway.engine.clients.facts import (
    EngineFacts,
    SlotFile,
    SlotRefused,
    SlotState,
    SlotUnanswered,
)
from trio_gateway.engine.clients.kind import EngineKind, local_host
from trio_gateway.engine.clients.prompts import count_largest, field
from trio_gateway.engine.http.control import Answer
from trio_gateway.engine.http.idle import KEPT_MAX
from trio_gateway.rawjson import decode_or_none

_ERROR_CHARACTERS = 500
# What a llama-server has; whether its model can do it, the server says itself.
_ENDPOINTS = frozenset(
    {
        "chat/completions", "completions", "embeddings", "responses",
        "chat/completions/input_tokens", "messages", "messages/count_tokens",
        "audio/transcriptions", "completion", "infill", "tokenize", "detokenize",
        "apply-template", "embedding", "rerank", "props", "slots", "slots/{slot}", "lora-adapters",
        "responses/input_tokens",
    }
)  # fmt: skip


class LlamaCppKind(EngineKind):
    """See EngineKind."""

    endpoints = _ENDPOINTS
    has_slots = True

    def client(self, base_url: str, options: EngineOptions) -> EngineClient:
        return LlamaCppEngine(base_url, options)

    def launch_args(self, args: Sequence[str], host: str, port: int) -> list[str]:
        filled = [a.replace("${PORT}", str(port)) for a in args]
        given = EngineArgs(filled)
        if not given.has(HOST):
            filled += [HOST.name, host]
        if not given.has(PORT):
            filled += [PORT.name, str(port)]
        return filled

    def fixed_address(self, args: EngineArgs) -> tuple[str, int] | None:
        port = args.value(PORT)
        if port is None or not port.isdigit():
            return None
        return self.listen_host(args), int(port)

    def listen_host(self, args: EngineArgs) -> str:
        # Of several addresses the first: the engine listens on all of them.
        first = (args.value(HOST) or "").split(",")[0].strip()
        return local_host(first or "127.0.0.1")

    def path_prefix(self, args: EngineArgs) -> str:
        return args.value(API_PREFIX) or ""

    def context_cure(
        self, declared: int, args: EngineArgs, facts: EngineFacts, shared_tokens: int | None
    ) -> str:
        slots = facts.slots or 1
        is_split = slots > 1 and shared_tokens is None and not _is_unified(args)
        lower = f"lower the variant's `context` to {facts.context}"
        if not args.context:
            own = "without -c it takes what the model was trained for, or what fits into memory"
            return f"{own}; set -c to {declared * slots if is_split else declared}, or {lower}"
        allowed = args.context // slots if is_split else args.context
        if allowed >= declared:
            return (
                f"-c allows {allowed}, so the limit is what the model was trained for, or what the "
                f"engine could fit into memory; {lower}"
            )
        if is_split:
            return (
                f"-c is split between {slots} slots; use -np 1 for one request at a time, or raise "
                f"-c to {declared * slots}"
            )
        return f"raise -c to {declared}, or {lower}"

    def shared_tokens(self, args: EngineArgs, facts: EngineFacts) -> int | None:
        slots, context = facts.slots, facts.context
        if slots is None or slots < 2 or context is None:
            return None
        if total := args.context:
            step = CONTEXT_STEP * slots
            is_split = context * slots < 2 * total and context == -(-total // step) * CONTEXT_STEP
            if is_split or context * slots <= total:
                return None
            return max(context, total)  # of which one gets no more than the model was trained for
        return context if _is_unified(args) else None

    def with_prompts_in_slots(self, variant: VariantConfig) -> VariantConfig:
        args, variable = variant.args, CACHE_RAM.variables[0]
        if EngineArgs(args).has(CACHE_RAM):
            return msgspec.structs.replace(variant, args=(*args, CACHE_RAM.name, "0"))
        # Builds that do not know it ignore a variable; an argument would end them.
        return msgspec.structs.replace(variant, env={**variant.env, variable: "0"})

    def keeps_prompts_in_slots(self, variant: VariantConfig) -> bool:
        # A wrapper (docker, a script) may not pass variables on.
        is_direct = "llama-server" in Path(variant.binary).name
        return is_direct or EngineArgs(variant.args).has(CACHE_RAM)

    def carryover_fault(self, args: EngineArgs) -> str | None:
        how = swa_full(args)
        return None if how is None else no_carryover(how)

    def slot_folder(self, args: EngineArgs) -> str | None:
        return args.value(SLOT_SAVE_PATH)

    def slot_folder_args(self, binary: str, folder: str) -> list[str]:
        # A wrapper (docker, a script) may not know the option, or see other folders.
        return [SLOT_SAVE_PATH.name, folder] if "llama-server" in Path(binary).name else []


def _is_unified(args: EngineArgs) -> bool:
    """Without --parallel there are four slots over one cache."""
    return args.is_on(UNIFIED_KV) or args.slots is None


class LlamaCppEngine(EngineClient):
    """See EngineClient."""

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        super().__init__(base_url, options)
        self.prefix = urlsplit(base_url).path
        self.idle.most = 1  # until it says how many slots it has
        self._counts_chats = True  # until the engine says that it has no such endpoint

    async def read_facts(self, timeout_s: float) -> EngineFacts:
        answer = await self.ask("GET", "/props", timeout_s)
        if answer is None or not isinstance(props := answer.value, dict):
            return EngineFacts()
        settings = props.get("default_generation_settings")
        context = _positive(settings.get("n_ctx")) if isinstance(settings, dict) else None
        for slot in await self._slots(timeout_s) or ():
            smallest = _positive(slot.get("n_ctx"))
            context = min(context or smallest, smallest) if smallest else context
        slots = _positive(props.get("total_slots"))
        self.idle.most = min(slots or 1, KEPT_MAX)
        return EngineFacts(
            slots,
            context,
            _text(props.get("model_path")),
            _text(props.get("build_info")),
            _text(props.get("chat_template_tool_use")) or _text(props.get("chat_template")),
            _media(props.get("modalities")),
        )

    async def count_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        if endpoint == "chat/completions":
            return await self._count_chat(body, timeout_s)
        key = "input" if endpoint == "embeddings" else "prompt"
        return await count_largest(field(body, key), partial(self._count_text, timeout_s=timeout_s))

    async def _count_chat(self, body: bytes, timeout_s: float) -> int | None:
        if self._counts_chats:
            path = "/v1/chat/completions/input_tokens"
            match await self.ask("POST", path, timeout_s, body):
                case Answer(value={"input_tokens": int(tokens)}):
                    return tokens
                case Answer(status=status) if status in NOT_THERE:
                    self._counts_chats = False
        prompt = await self._render(body, timeout_s)
        return None if prompt is None else await self._count_text(prompt, timeout_s)

    # -- slots -----------------------------------------------------------------------------------

    async def read_slots(self, timeout_s: float) -> list[SlotState] | None:
        slots = await self._slots(timeout_s)
        if slots is None:
            return None
        return [
            SlotState(slot["id"], _positive(slot.get("n_prompt_tokens")), _cached_now(slot))
            for slot in slots
            if isinstance(slot.get("id"), int)
        ]

    async def _slots(self, timeout_s: float) -> list[dict[str, Any]] | None:
        match await self.ask("GET", "/slots", timeout_s):
            case Answer(value=[*slots]):
                return [slot for slot in slots if isinstance(slot, dict)]
        return None

    async def save_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        begun = trio.current_time()
        match await self._act(slot, "save", filename, timeout_s):
            case Answer(value={"n_saved": int(tokens), "n_written": int(size), **rest}):
                return SlotFile(tokens, size, _took_ms(rest, "save_ms", begun))
            case answer:
                raise _refusal(answer)

    async def restore_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        begun = trio.current_time()
        match await self._act(slot, "restore", filename, timeout_s):
            case Answer(value={"n_restored": int(tokens), "n_read": int(size), **rest}):
                return SlotFile(tokens, size, _took_ms(rest, "restore_ms", begun))
            case answer:
                raise _refusal(answer)

    async def erase_slot(self, slot: int, timeout_s: float) -> None:
        await self._act(slot, "erase", None, timeout_s)

    async def _act(
        self, slot: int, action: str, filename: str | None, timeout_s: float
    ) -> Answer | None:
        body = msgspec.json.encode({} if filename is None else {"filename": filename})
        path = f"/slots/{slot}?action={action}"
        return await self.ask("POST", path, timeout_s, body)

    async def tokenize_request(
        self, endpoint: str, body: bytes, timeout_s: float
    ) -> list[int] | None:
        if endpoint == "chat/completions":
            prompt = await self._render(body, timeout_s)
        else:
            prompt = field(body, "prompt")
        return await self._tokenize(prompt, timeout_s) if isinstance(prompt, str) else None

    # -- counting --------------------------------------------------------------------------------

    async def _render(self, body: bytes, timeout_s: float) -> str | None:
        """The prompt that the engine makes of a chat."""
        match await self.ask("POST", "/apply-template", timeout_s, body):
            case Answer(value={"prompt": str(prompt)}):
                return prompt
        return None

    async def _count_text(self, text: str, timeout_s: float) -> int | None:
        ids = await self._tokenize(text, timeout_s)
        return None if ids is None else len(ids)

    async def _tokenize(self, text: str, timeout_s: float) -> list[int] | None:
        body = msgspec.json.encode({"content": text, "add_special": True})
        match await self.ask("POST", "/tokenize", timeout_s, body):
            case Answer(value={"tokens": list(tokens)}):
                return tokens
        return None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _media(modalities: Any) -> frozenset[str] | None:
    if not isinstance(modalities, dict):
        return None  # an older build
    return frozenset(word for word in ("vision", "audio") if modalities.get(word) is True)


def _cached_now(slot: Mapping[str, Any]) -> int | None:
    cached = slot.get("n_prompt_tokens_cache")
    return cached if slot.get("is_processing") is True and isinstance(cached, int) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _took_ms(answer: Mapping[Any, Any], key: str, begun: float) -> float:
    """As the engine says, or as seen from here."""
    match answer.get("timings"):
        case dict(timings) if isinstance(took := timings.get(key), int | float):
            return float(took)
    return (trio.current_time() - begun) * 1000


def _refusal(answer: Answer | None) -> SlotRefused:
    """Why the engine did not do it, in its own words if it had any."""
    if answer is None or (answer.status == 200 and answer.value is None):
        return SlotUnanswered("the engine gave no answer")
    if answer.status == 200:
        return SlotRefused("the engine's answer has no numbers of tokens and bytes")
    match decode_or_none(answer.body):
        case {"error": {"message": message}}:
            return SlotRefused(str(message)[:_ERROR_CHARACTERS])
    return SlotRefused(f"the engine answered with status {answer.status}")
