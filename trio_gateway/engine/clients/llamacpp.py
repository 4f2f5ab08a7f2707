"""LlamaCppEngine: a llama-server. Capabilities are detected: builds differ."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import trio

from trio_gateway.config.engine_args import (
    CONTEXT,
    PARALLEL,
    SLOT_SAVE_PATH,
    UNIFIED_KV,
    has_option,
    option,
)
from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.client import NO_OPTIONS, EngineClient
from trio_gateway.engine.clients.facts import (
    EngineFacts,
    Health,
    SlotFile,
    SlotRefused,
    SlotState,
    SlotUnanswered,
)
from trio_gateway.engine.clients.kind import EngineKind, local_host
from trio_gateway.engine.clients.prompt_counts import count_prompts, field
from trio_gateway.engine.errors import (
    EngineDisconnected,
    EngineTalksGarbage,
    EngineUnreachable,
    ExchangeAborted,
    OutOfSockets,
)

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_NOT_THERE = (404, 405, 501)
_ERROR_CHARACTERS = 500
# What a llama-server has; whether its model can do it, the server says itself.
_ENDPOINTS = frozenset(
    {
        "chat/completions", "completions", "embeddings", "responses",
        "chat/completions/input_tokens", "messages", "messages/count_tokens",
        "audio/transcriptions", "completion", "infill", "tokenize", "detokenize",
        "apply-template", "embedding", "rerank", "props", "slots",
    }
)  # fmt: skip
_HOST, _PORT = ("--host",), ("--port",)


class LlamaCppKind(EngineKind):
    """See EngineKind."""

    endpoints = _ENDPOINTS
    has_slots = True

    def client(self, base_url: str, options: EngineOptions) -> LlamaCppEngine:
        return LlamaCppEngine(base_url, options)

    def launch_args(self, args: Sequence[str], host: str, port: int) -> list[str]:
        filled = [a.replace("${PORT}", str(port)) for a in args]
        if not has_option(filled, _HOST):
            filled += ["--host", host]
        if not has_option(filled, _PORT):
            filled += ["--port", str(port)]
        return filled

    def fixed_address(self, args: Sequence[str]) -> tuple[str, int] | None:
        port = option(args, _PORT)
        if port is None or not port.isdigit():
            return None
        return self.listen_host(args), int(port)

    def listen_host(self, args: Sequence[str]) -> str:
        return local_host(option(args, _HOST) or "127.0.0.1")

    def context_cure(self, declared: int, facts: EngineFacts, shared_tokens: int | None) -> str:
        slots = facts.places or 1
        if slots > 1 and shared_tokens is None:
            return (
                f"-c is split between {slots} slots; use -np 1 for one request at a time, or raise "
                f"-c to {declared * slots}"
            )
        return f"raise -c to {declared}, or lower the variant's `context`"

    def shared_tokens(self, args: Sequence[str], facts: EngineFacts) -> int | None:
        slots, context = facts.places, facts.context
        if slots is None or slots < 2 or context is None:
            return None
        size = option(args, CONTEXT) or ""
        total = int(size) if size.isdecimal() else 0
        if total:  # split among the slots, unless each has all of it
            return context if context * slots >= 2 * total else None
        # Without --parallel there are four slots over one cache.
        given = option(args, PARALLEL)
        unified = has_option(args, UNIFIED_KV) or given is None or not given.isdecimal()
        return context if unified else None

    def slot_folder(self, args: Sequence[str]) -> str | None:
        return option(args, SLOT_SAVE_PATH)

    def slot_folder_args(self, binary: str, folder: str) -> list[str]:
        # A wrapper (docker, a script) may not know the option, or see other folders.
        return [SLOT_SAVE_PATH[0], folder] if "llama-server" in Path(binary).name else []


class _NotOk(msgspec.Struct, frozen=True):
    """An answer with a status other than 200, and the start of its text."""

    status: int
    text: str


class LlamaCppEngine(EngineClient):
    """See EngineClient. The control requests here go through httpx, one connection each: an idle
    kept connection occupies one of the server's few threads."""

    def __init__(self, base_url: str, options: EngineOptions = NO_OPTIONS) -> None:
        super().__init__(base_url, options)
        self._http = httpx.AsyncClient(
            base_url=base_url,
            verify=False,  # loopback; building a TLS context costs 23 ms
            trust_env=False,  # HTTP_PROXY must not see loopback traffic
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._counts_chats = True  # until the engine says that it has no such endpoint

    async def aclose(self) -> None:
        await self._http.aclose()

    async def check_health(self, timeout_s: float) -> Health:
        # Not through httpx: a start is polled dozens of times, beside an engine that loads on the
        # same cores, and this takes 0.3 ms of CPU instead of 0.8 (`nox -s bench`).
        try:
            with trio.fail_after(timeout_s):
                status = await self.ask_status("/health")
            return Health(status == 200, f"HTTP {status}")
        except trio.TooSlowError:
            return Health(False, f"no answer within {timeout_s:g} s", silent=True)
        except (OutOfSockets, EngineTalksGarbage, ExchangeAborted) as error:
            return Health(False, str(error))
        except (EngineUnreachable, EngineDisconnected) as error:
            return Health(False, str(error), silent=True)

    async def read_facts(self, timeout_s: float) -> EngineFacts:
        props = await self._ask("GET", "/props", None, timeout_s)
        if not isinstance(props, dict):
            return EngineFacts()
        settings = props.get("default_generation_settings")
        context = _positive(settings.get("n_ctx")) if isinstance(settings, dict) else None
        for slot in await self._slots(timeout_s) or ():
            smallest = _positive(slot.get("n_ctx"))
            context = min(context or smallest, smallest) if smallest else context
        return EngineFacts(
            _positive(props.get("total_slots")),
            context,
            _text(props.get("model_path")),
            _text(props.get("build_info")),
        )

    async def estimate_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        if endpoint == "chat/completions":
            return await self._count_chat(body, timeout_s)
        key = "input" if endpoint == "embeddings" else "prompt"
        return await count_prompts(field(body, key), partial(self._count_text, timeout_s=timeout_s))

    async def _count_chat(self, body: bytes, timeout_s: float) -> int | None:
        if self._counts_chats:
            path = "/v1/chat/completions/input_tokens"
            match await self._ask("POST", path, body, timeout_s):
                case {"input_tokens": int(tokens)}:
                    return tokens
                case _NotOk(status=status) if status in _NOT_THERE:
                    self._counts_chats = False
        match await self._ask("POST", "/apply-template", body, timeout_s):
            case {"prompt": str(prompt)}:
                return await self._count_text(prompt, timeout_s)
        return None

    # -- slots -----------------------------------------------------------------------------------

    async def read_slots(self, timeout_s: float) -> list[SlotState] | None:
        slots = await self._slots(timeout_s)
        if slots is None:
            return None
        return [
            SlotState(slot["id"], _positive(slot.get("n_prompt_tokens")))
            for slot in slots
            if isinstance(slot.get("id"), int)
        ]

    async def _slots(self, timeout_s: float) -> list[dict[str, Any]] | None:
        answer = await self._ask("GET", "/slots", None, timeout_s)
        return [s for s in answer if isinstance(s, dict)] if isinstance(answer, list) else None

    async def save_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        begun = trio.current_time()
        match await self._act(slot, "save", filename, timeout_s):
            case {"n_saved": int(tokens), "n_written": int(size), **rest}:
                return SlotFile(tokens, size, _took_ms(rest, "save_ms", begun))
            case answer:
                raise _refusal(answer)

    async def restore_slot(self, slot: int, filename: str, timeout_s: float) -> SlotFile:
        begun = trio.current_time()
        match await self._act(slot, "restore", filename, timeout_s):
            case {"n_restored": int(tokens), "n_read": int(size), **rest}:
                return SlotFile(tokens, size, _took_ms(rest, "restore_ms", begun))
            case answer:
                raise _refusal(answer)

    async def erase_slot(self, slot: int, timeout_s: float) -> None:
        await self._act(slot, "erase", None, timeout_s)

    async def _act(self, slot: int, action: str, filename: str | None, timeout_s: float) -> Any:
        body = msgspec.json.encode({} if filename is None else {"filename": filename})
        path = f"/slots/{slot}?action={action}"
        return await self._ask("POST", path, body, timeout_s)

    async def tokenize_request(
        self, endpoint: str, body: bytes, timeout_s: float
    ) -> list[int] | None:
        if endpoint == "chat/completions":
            answer = await self._ask("POST", "/apply-template", body, timeout_s)
            prompt = answer.get("prompt") if isinstance(answer, dict) else None
        else:
            prompt = field(body, "prompt")
        return await self._tokenize(prompt, timeout_s) if isinstance(prompt, str) else None

    # -- counting --------------------------------------------------------------------------------

    async def _count_text(self, text: str, timeout_s: float) -> int | None:
        ids = await self._tokenize(text, timeout_s)
        return None if ids is None else len(ids)

    async def _tokenize(self, text: str, timeout_s: float) -> list[int] | None:
        body = msgspec.json.encode({"content": text, "add_special": True})
        match await self._ask("POST", "/tokenize", body, timeout_s):
            case {"tokens": list(tokens)}:
                return tokens
        return None

    async def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Any:
        """The decoded answer; a _NotOk where it is not 200; None without one."""
        if self._http.is_closed:  # the engine went away between two questions
            return None
        try:
            answer = await self._http.request(
                method,
                path,
                content=body,
                headers={"Content-Type": "application/json"},
                timeout=timeout_s,
            )
            self.pulse.beats += 1
            if answer.status_code != 200:
                return _NotOk(answer.status_code, answer.text[:_ERROR_CHARACTERS])
            return msgspec.json.decode(answer.content)
        except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.debug("%s %s%s: %r", method, self.base_url, path, error)
            return None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _took_ms(answer: Mapping[Any, Any], key: str, begun: float) -> float:
    """As the engine says, else as seen from here."""
    match answer.get("timings"):
        case dict(timings) if isinstance(took := timings.get(key), int | float):
            return float(took)
    return (trio.current_time() - begun) * 1000


def _refusal(answer: Any) -> SlotRefused:
    """Why the engine did not do it, in its own words if it had any."""
    if answer is None:
        return SlotUnanswered("the engine gave no answer")
    if not isinstance(answer, _NotOk):
        return SlotRefused("the engine's answer has no numbers of tokens and bytes")
    try:
        return SlotRefused(str(msgspec.json.decode(answer.text)["error"]["message"]))
    except (msgspec.DecodeError, TypeError, KeyError):
        return SlotRefused(f"the engine answered with status {answer.status}")
