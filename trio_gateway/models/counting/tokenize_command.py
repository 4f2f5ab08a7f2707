"""Counting tokens with a `llama-tokenize`: exact for text, no engine needed.

It knows no chat template: what that adds comes from the configuration, or is an allowance.
"""

from __future__ import annotations

import logging
from typing import TypeGuard

import trio

from trio_gateway.config.schema import TokenizationConfig
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.engine.process.tool import run_tool
from trio_gateway.models.need.bounds import (
    Overhead,
    RequestFields,
    message_count,
    prompt_texts,
)

log = logging.getLogger(__name__)

# It loads the vocabulary for each call: 0.1 s for a small model, seconds from a slow disk.
TIMEOUT_S = 20.0


async def count_with_command(
    config: TokenizationConfig,
    fields: RequestFields,
    overhead: Overhead,
    reaper: Reaper | None = None,
) -> int | None:
    """Tokens of a request's prompt without its media; None if the command failed.

    Of several prompts in one request, the largest. A chat gets the configured extras, or without
    any the overhead.
    """
    if isinstance(fields.messages, list):
        tokens = await count_text(config, "\n".join(prompt_texts(fields)), reaper)
        return None if tokens is None else tokens + _extras(config, fields, overhead)
    prompts = fields.prompt if fields.prompt is not None else fields.input
    counts = []
    for prompt in prompts if _is_batch(prompts) else [prompts]:
        tokens = await _count_prompt(config, prompt, reaper)
        if tokens is None:
            return None
        counts.append(tokens)
    return max(counts, default=0) + config.extra_tokens


def _extras(config: TokenizationConfig, fields: RequestFields, overhead: Overhead) -> int:
    if config.has_extras:
        return config.extra_tokens + config.extra_tokens_per_message * message_count(fields)
    return overhead.of(fields)


def _is_batch(prompts: object) -> TypeGuard[list[object]]:
    return isinstance(prompts, list) and not any(isinstance(p, int) for p in prompts)


async def _count_prompt(
    config: TokenizationConfig, prompt: object, reaper: Reaper | None
) -> int | None:
    """Tokens of one sequence: a text, or token ids, perhaps with texts between."""
    if not isinstance(prompt, list):
        return await count_text(config, str(prompt), reaper)
    total = 0
    for part in prompt:
        tokens = 1 if isinstance(part, int) else await count_text(config, str(part), reaper)
        if tokens is None:
            return None
        total += tokens
    return total


async def count_text(config: TokenizationConfig, text: str, reaper: Reaper | None) -> int | None:
    """Tokens of one text; None if the command failed, which is logged."""
    command = [config.binary, *config.base_args, *config.extra_args]
    try:
        with trio.fail_after(TIMEOUT_S):
            stdin = text.encode("utf-8", "surrogatepass")
            code, printed = await run_tool(command, stdin, reaper)
    except (OSError, trio.TooSlowError) as error:
        log.error("%s: %s; tokens are estimated instead", config.binary, str(error) or "too slow")
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
