"""An engine with several places is told which requests belong together; nobody else is."""

from __future__ import annotations

import pytest

from tests.support.asking import CHAT, Clock, chat
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.engine.clients.headers import AFFINITY

SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "How are you?"},
]
BODIES = {
    CHAT: [chat(messages=[SYSTEM, *TURNS[:1]]), chat(messages=[SYSTEM, *TURNS])],
    "/api/chat": [chat(messages=TURNS[:1]), chat(messages=TURNS)],
}


def keys(stack: Stack) -> list[bytes | None]:
    return [headers.get(AFFINITY) for _, headers, _ in stack.engines.requests]


@pytest.mark.parametrize("path", [*BODIES])
async def test_all_turns_of_a_conversation_are_told_alike(path: str, autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.client_type.routes_by_affinity = True
        for body in [*BODIES[path], chat(messages=TURNS[2:])]:
            await stack.post(path, body)
        first, second, other = keys(stack)
        assert first == second
        assert first is not None
        assert len(first) == 16
        assert other not in (None, first)


async def test_a_client_s_own_name_for_it_comes_first(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.client_type.routes_by_affinity = True
        for session, turns in (("a", TURNS[:1]), ("a", TURNS[2:]), ("b", TURNS[:1])):
            await stack.post(CHAT, chat(messages=turns), {"X-Session-Id": session})
        first, second, other = keys(stack)
        assert first == second is not None
        assert other not in (None, first, b"b")


async def test_others_are_told_nothing(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, BODIES[CHAT][0], {"X-Gateway-Affinity": "a client's"})
        assert keys(stack) == [None]
