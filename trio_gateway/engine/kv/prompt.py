"""Prompt: a request as an engine gets it; its tokens identify its conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from trio_gateway.engine.clients.client import EngineClient

TOKENIZE_LIMIT_S = 5.0  # one prompt
# This many waiting requests are looked at to choose among saved conversations.
PROMPTS_MAX = 4
_NOT_CACHED = b'"cache_prompt"'  # with whatever value; the default is what carry-over is for


class Prompt(msgspec.Struct, frozen=True):
    """`body`: empty, where it is too long to be looked at. `owner`: the name of the API key that it
    came with; empty without one."""

    endpoint: str
    body: bytes
    owner: str = ""


async def token_ids(client: EngineClient, prompt: Prompt) -> Sequence[int] | None:
    """As the engine reads it; None: it cannot say, or the request says how it uses the cache, or is
    too long to be looked at."""
    if not prompt.body or _NOT_CACHED in prompt.body:
        return None  # its answer says nothing about what was in the cache
    return await client.tokenize_request(prompt.endpoint, prompt.body, TOKENIZE_LIMIT_S)


async def waiting_ids(
    client: EngineClient, waiting: Mapping[int, Prompt]
) -> dict[int, Sequence[int]]:
    """Of the first few that wait, by ticket; those that are not known are left out."""
    first = [*waiting.items()][:PROMPTS_MAX]
    found = {ticket: await token_ids(client, prompt) for ticket, prompt in first}
    return {ticket: ids for ticket, ids in found.items() if ids is not None}
