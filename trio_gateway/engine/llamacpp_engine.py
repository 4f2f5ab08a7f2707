"""LlamaCppEngine: a llama-server. Capabilities are detected: builds differ."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import trio

from trio_gateway.engine.engine_client import EngineClient, EngineFacts, Health, local_host
from trio_gateway.engine.http_exchange import (
    EngineDisconnected,
    EngineTalksGarbage,
    EngineUnreachable,
    ExchangeAborted,
    OutOfSockets,
)

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_NOT_THERE = (404, 405, 501)


class LlamaCppEngine(EngineClient):
    """See EngineClient. The control requests here go through httpx, one connection each: an idle
    kept connection occupies one of the server's few threads."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self._http = httpx.AsyncClient(
            base_url=base_url,
            verify=False,  # loopback; building a TLS context costs 23 ms
            trust_env=False,  # HTTP_PROXY must not see loopback traffic
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._counts_chats = True  # until the engine says that it has no such endpoint

    @staticmethod
    def launch_args(args: Sequence[str], host: str, port: int) -> list[str]:
        filled = [a.replace("${PORT}", str(port)) for a in args]
        if not _has_option(filled, "--host"):
            filled += ["--host", host]
        if not _has_option(filled, "--port"):
            filled += ["--port", str(port)]
        return filled

    @staticmethod
    def fixed_address(args: Sequence[str]) -> tuple[str, int] | None:
        port = _option(args, "--port")
        if port is None or not port.isdigit():
            return None
        return LlamaCppEngine.listen_host(args), int(port)

    @staticmethod
    def listen_host(args: Sequence[str]) -> str:
        return local_host(_option(args, "--host") or "127.0.0.1")

    @staticmethod
    def get_supported_endpoints() -> frozenset[str]:
        return frozenset({"chat/completions", "completions", "embeddings"})

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
        context = settings.get("n_ctx") if isinstance(settings, dict) else None
        return EngineFacts(_positive(props.get("total_slots")), _positive(context))

    async def estimate_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None:
        if endpoint == "chat/completions":
            return await self._count_chat(body, timeout_s)
        key = "input" if endpoint == "embeddings" else "prompt"
        return await self._count_prompts(msgspec.json.decode(body).get(key), timeout_s)

    async def _count_chat(self, body: bytes, timeout_s: float) -> int | None:
        if self._counts_chats:
            path = "/v1/chat/completions/input_tokens"
            match await self._ask("POST", path, body, timeout_s):
                case {"input_tokens": int(tokens)}:
                    return tokens
                case int(status) if status in _NOT_THERE:
                    self._counts_chats = False
        match await self._ask("POST", "/apply-template", body, timeout_s):
            case {"prompt": str(prompt)}:
                return await self._count_text(prompt, timeout_s)
        return None

    async def _count_prompts(
        self, prompts: Any, timeout_s: float, *, nested: bool = False
    ) -> int | None:
        """The largest of the prompts: each is a sequence of its own."""
        match prompts:
            case str():
                return await self._count_text(prompts, timeout_s)
            case [*parts] if parts and all(isinstance(p, int | str) for p in parts):
                texts = [p for p in parts if isinstance(p, str)]
                counts = [await self._count_text(text, timeout_s) for text in texts]
                ids = len(parts) - len(texts)
                # Token ids make it one sequence, with the strings between them in it.
                return _total(counts, ids) if ids else _largest(counts)
            case [*parts] if parts and not nested:
                each = [await self._count_prompts(p, timeout_s, nested=True) for p in parts]
                return _largest(each)
        return None

    async def _count_text(self, text: str, timeout_s: float) -> int | None:
        body = msgspec.json.encode({"content": text, "add_special": True})
        match await self._ask("POST", "/tokenize", body, timeout_s):
            case {"tokens": list(tokens)}:
                return len(tokens)
        return None

    async def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Any:
        """The decoded answer; the status as an int where it is not 200; None without one."""
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
                return answer.status_code
            return msgspec.json.decode(answer.content)
        except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.debug("%s %s%s: %r", method, self.base_url, path, error)
            return None


def _has_option(args: Sequence[str], name: str) -> bool:
    return any(a == name or a.startswith(name + "=") for a in args)


def _option(args: Sequence[str], name: str) -> str | None:
    """The option's value; of several, the last, as llama-server reads them."""
    value = None
    for index, arg in enumerate(args):
        if arg == name and index + 1 < len(args):
            value = args[index + 1]
        elif arg.startswith(name + "="):
            value = arg[len(name) + 1 :]
    return value


def _largest(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


def _total(counts: Sequence[int | None], more: int) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) + more if len(known) == len(counts) else None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
