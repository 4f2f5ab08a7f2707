"""Tokenizer: counts tokens with a command such as `llama-tokenize`.

That is exact for text, and needs no engine. It knows no chat template: what that adds comes from
the configuration, or is an allowance.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import trio

from trio_gateway.config.schema import TokenizationConfig
from trio_gateway.engine.clients.prompts import count_largest
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.engine.process.tool import run_tool
from trio_gateway.models.need.bounds import Overhead
from trio_gateway.models.need.contents import RequestFields, message_count, prompt_texts

log = logging.getLogger(__name__)

# It loads the vocabulary for each call: 0.1 s for a small model, seconds from a slow disk.
TIMEOUT_S = 20.0


class Tokenizer:
    """Counts with a command of the configuration, or with a `llama-tokenize` next to an engine.

    `turns`: shared by all of them. Each call is a turn, so a request with many texts waits for the
    others' as they wait for it, and no more processes run at a time. `secrets`: variables that it
    does not inherit.
    """

    def __init__(
        self,
        config: TokenizationConfig,
        reaper: Reaper | None = None,
        turns: trio.CapacityLimiter | None = None,
        secrets: Collection[str] = (),
    ) -> None:
        self._config, self._reaper, self._secrets = config, reaper, secrets
        self._turns = turns or trio.CapacityLimiter(1)

    async def count_request(self, fields: RequestFields, overhead: Overhead) -> int | None:
        """Tokens of a request's prompt without its media; None if the command failed.

        Of several prompts in one request, the largest. A chat gets the configured extras, or
        without any the overhead.
        """
        if isinstance(fields.messages, list):
            tokens = await self.count("\n".join(prompt_texts(fields)))
            return None if tokens is None else tokens + self._extras(fields, overhead)
        prompts = fields.prompt if fields.prompt is not None else fields.input
        tokens = await self._count_prompts(prompts)
        return None if tokens is None else tokens + self._config.extra_tokens

    def _extras(self, fields: RequestFields, overhead: Overhead) -> int:
        config = self._config
        if config.has_extras:
            return config.extra_tokens + config.extra_tokens_per_message * message_count(fields)
        return overhead.of(fields)

    async def _count_prompts(self, prompts: object) -> int | None:
        """Tokens of the largest; `prompts` may also be one."""
        if prompts == []:
            return 0
        if not isinstance(prompts, list | str):
            prompts = str(prompts)
        return await count_largest(prompts, self.count)

    async def count(self, text: str) -> int | None:
        """Tokens of one text; None if the command failed, which is logged."""
        config = self._config
        command = [config.binary, *config.base_args, *config.extra_args]
        try:
            async with self._turns:
                with trio.fail_after(TIMEOUT_S):
                    stdin = text.encode("utf-8", "surrogatepass")
                    code, printed = await run_tool(command, stdin, self._reaper, self._secrets)
        except (OSError, trio.TooSlowError) as error:
            why = str(error) or "too slow"
            log.error("%s: %s; tokens are estimated instead", config.binary, why)
            return None
        ids = printed.decode("ascii", "replace").strip().removeprefix("[").removesuffix("]")
        words = [word.strip() for word in ids.split(",")] if ids.strip() else []
        silent = bool(text) and not words
        if code or silent or not all(word.lstrip("-").isdigit() for word in words):
            log.error(
                "%s (exit code %s) printed no token ids; tokens are estimated instead. "
                "Try it by hand: echo text | %s",
                config.binary, code, " ".join(command),
            )  # fmt: skip
            return None
        return len(words)
