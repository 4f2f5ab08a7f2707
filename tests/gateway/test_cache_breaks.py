"""A request that parts early from the last one of its conversation: answer and log say where."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpcore
import pytest

from tests.support.asking import CHAT, Clock
from tests.support.fakes import FakeKind
from tests.support.reading import read_here
from tests.support.schema_values import config, model, variant
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.engine.clients.llamacpp import LlamaCppKind

KEYS = ("key-a-0123456789abcdef", "key-b-0123456789abcdef")
TURNS = [
    {"role": "user", "content": "How do I boil an egg?"},
    {"role": "assistant", "content": "In water."},
    {"role": "user", "content": "And a potato?"},
]


@pytest.fixture(autouse=True)
def _all_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeKind, "endpoints", LlamaCppKind.endpoints)


def as_chat(clock: str, turns: int) -> tuple[str, dict[str, Any]]:
    return CHAT, {"messages": [{"role": "system", "content": clock}, *TURNS[:turns]]}


def as_messages(clock: str, turns: int) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"system": clock, "messages": TURNS[:turns], "max_tokens": 9}


def as_responses(clock: str, turns: int) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"instructions": clock, "input": TURNS[:turns]}


def clock(time: str) -> str:
    return f"You are kind. It is {time} now. " + "Be brief. " * 100


async def told(
    stack: Stack, request: tuple[str, dict[str, Any]], key: str | None = None
) -> str | None:
    """What the answer says of a broken cache."""
    path, fields = request
    headers = [] if key is None else [("Authorization", f"Bearer {key}")]
    body = json.dumps({"model": "m", **fields}).encode()
    url = f"http://gateway{path}"
    answer: httpcore.Response = await stack.http.request("POST", url, content=body, headers=headers)
    assert answer.status == 200, answer.content
    found = {name.lower(): value.decode() for name, value in answer.headers}
    return found.get(b"x-gateway-cache-break")


@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("make", [as_chat, as_messages, as_responses])
async def test_a_clock_in_the_system_prompt(
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    make: Any,
    is_large: bool,
) -> None:
    read_here(monkeypatch, everything=is_large)
    caplog.set_level(logging.INFO)
    async with running_stack(config(model("m", variant(8192)))) as stack:
        assert await told(stack, make(clock("10:41:53"), 1)) is None
        assert await told(stack, make(clock("10:42:07"), 3)) == "messages[0] (system), byte 31"
        assert await told(stack, make(clock("10:42:07"), 3)) is None
    (line,) = [line for line in caplog.messages if "first to differ" in line]
    assert "messages[0] (system), byte 31: " in line
    assert "It is 10:42:07 now" in line
    assert "It is 10:41:53 now" in line


async def test_one_key_learns_nothing_of_another(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keys = tuple(ApiKey(name=key[:5], secret=key) for key in KEYS)
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=keys)
    async with running_stack(config(model("m", variant(8192)), access=access)) as stack:
        assert await told(stack, as_chat(clock("10:41"), 1), KEYS[0]) is None
        assert await told(stack, as_chat(clock("10:42"), 3), KEYS[1]) is None
    assert not [line for line in caplog.messages if "first to differ" in line]


async def test_the_log_need_not_have_the_words(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    subject = config(model("m", variant(8192)), cache_break_excerpts=False)
    async with running_stack(subject) as stack:
        await told(stack, as_chat(clock("10:41"), 1))
        assert await told(stack, as_chat(clock("10:42"), 3)) is not None
    (line,) = [line for line in caplog.messages if "first to differ" in line]
    assert "It is" not in line
