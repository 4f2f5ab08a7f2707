"""`GET /gateway/requests` and `GET /gateway/usage`: what requests did, in memory."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, Clock, chat, error_of
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.history_schema import HistoryConfig

ANSWER = (
    b'{"model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}'
)
KEYS = (
    ApiKey(name="boss", secret="a-key-of-the-boss-0123456789", admin=True),
    ApiKey(name="anna", secret="a-key-of-anna-0123456789"),
    ApiKey(name="bert", secret="a-key-of-bert-0123456789"),
)
ACCESS = AccessConfig(allowed_hosts=("gateway",), api_keys=KEYS)


def bearer(name: str) -> dict[str, str]:
    secret = next(key.secret for key in KEYS if key.name == name)
    return {"Authorization": f"Bearer {secret}"}


async def get(stack: Stack, path: str, by: str | None = None) -> dict[str, Any]:
    headers = bearer(by) if by is not None else {}
    url = f"http://gateway/gateway/{path}"
    response = await stack.http.request("GET", url, headers=[*headers.items()])
    assert response.status == 200, response.content
    found: dict[str, Any] = json.loads(response.content)
    return found


async def ids(stack: Stack, query: str = "", by: str | None = None) -> list[str]:
    return [row["id"] for row in (await get(stack, f"requests{query}", by))["requests"]]


async def ask(stack: Stack, body: bytes, by: str | None = None) -> str:
    """Its id."""
    answer = await stack.post(CHAT, body, bearer(by) if by is not None else None)
    return dict(answer.headers)[b"x-gateway-request-id"].decode()


async def test_what_two_keys_call_a_conversation_are_two(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), access=ACCESS)) as stack:
        for name, said in (("anna", "c"), ("bert", "c"), ("anna", "c"), ("anna", "my own words")):
            await stack.post(CHAT, chat(), {**bearer(name), "X-Session-Id": said})
        await stack.post(CHAT, chat(), {**bearer("bert"), "X-Session-Id": "my own words"})
        seen = (await get(stack, "requests", by="boss"))["requests"]
        own = (await get(stack, "requests", by="bert"))["requests"]
    found = [row["conversation"] for row in reversed(seen)]
    assert found[:3] == ["anna: c", "bert: c", "anna: c"]
    assert len({*found}) == 4
    assert [row["conversation"] for row in reversed(own)] == [found[1], found[4]]


async def test_the_newest_comes_first_also_of_those_under_way(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[ANSWER], [ANSWER], [1000.0]]
        asked = [await ask(stack, chat()), await ask(stack, chat())]
        nursery.start_soon(ask, stack, chat())
        await trio.sleep(5.0)
        page = await get(stack, "requests")
        assert [row["stage"] for row in page["requests"]] == ["reading", "done", "done"]
        assert [row["id"] for row in page["requests"][1:]] == asked[::-1]
        assert page["more"] is False
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_pages_fit_together_while_new_ones_come_and_old_ones_end(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        began_s = time.time()
        monkeypatch.setattr(time, "time", lambda: began_s + trio.current_time())
        stack.engines.scripts = [[ANSWER], [20.0, ANSWER], *[[ANSWER] for _ in range(9)]]
        first = await ask(stack, chat())
        await trio.sleep(1.0)
        nursery.start_soon(ask, stack, chat())
        for _ in range(3):
            await trio.sleep(1.0)
            await ask(stack, chat())
        seen = await ids(stack, "?limit=2")
        assert (await get(stack, "requests?limit=2"))["more"] is True
        await ask(stack, chat())
        await trio.sleep(30.0)  # the one under way ends
        seen += await ids(stack, f"?limit=2&before={seen[-1]}")
        seen += await ids(stack, f"?limit=2&before={seen[-1]}")
        assert len(seen) == len(set(seen)) == 5
        assert seen[-1] == first
        assert (await get(stack, f"requests?before={seen[-1]}")) == {"requests": [], "more": False}


async def test_only_the_last_ones_are_remembered(autojump_clock: Clock) -> None:
    given = config(model("m"), history=HistoryConfig(requests=2))
    async with running_stack(given) as stack:
        asked = [await ask(stack, chat()) for _ in range(3)]
        assert await ids(stack) == asked[:0:-1]
        forgotten = await stack.get(f"/gateway/requests?before={asked[0]}")
    assert (forgotten.status, error_of(forgotten)["param"]) == (400, "before")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("model=a", [0, 1]),
        ("model=b", [2]),
        ("model=nobody", []),
        ("client=anna", [0, 2]),
        ("client=bert&model=a", [1]),
        ("status=ok", [0, 2]),
        ("status=refused", [1]),
        ("status=error", [1]),
        ("status=400", [1]),
        ("status=4xx", [1]),
        ("status=done", [0, 1, 2]),
        ("status=live", []),
        ("since=1h", [0, 1, 2]),
        ("since=9999999999", []),
        ("since=2999-01-01", []),
        ("since=2020-01-01T00:00:00%2B02:00", [0, 1, 2]),
        ("before=2020-01-01", []),
        ("limit=1", [2]),
    ],
)
async def test_filters(autojump_clock: Clock, query: str, found: list[int]) -> None:
    async with running_stack(config(model("a"), model("b"), access=ACCESS)) as stack:
        asked = [
            await ask(stack, chat("a"), "anna"),
            await ask(stack, chat("a", max_tokens=-7), "bert"),
            await ask(stack, chat("b"), "anna"),
        ]
        assert sorted(map(asked.index, await ids(stack, f"?{query}", "boss"))) == found


async def test_a_key_that_is_no_admins_sees_its_own_only(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), access=ACCESS)) as stack:
        stack.engines.scripts = [[ANSWER], [ANSWER]]
        annas, berts = await ask(stack, chat(), "anna"), await ask(stack, chat(), "bert")
        assert await ids(stack, by="anna") == [annas]
        assert await ids(stack, "?client=bert", by="anna") == []
        assert await ids(stack, by="boss") == [berts, annas]
        usage = await get(stack, "usage?by=client", "anna")
        assert [(row["client"], row["requests"]) for row in usage["usage"]] == [("anna", 1)]
        url = f"http://gateway/gateway/requests?before={berts}"
        refused = await stack.http.request("GET", url, headers=[*bearer("anna").items()])
        assert refused.status == 400


async def test_usage(autojump_clock: Clock) -> None:
    async with running_stack(config(model("a"), model("b"))) as stack:
        stack.engines.scripts = [[ANSWER], [ANSWER], [ANSWER]]
        for body in (chat("a"), chat("a"), chat("a", max_tokens=-7), chat("b")):
            await ask(stack, body)
        by_model = (await get(stack, "usage"))["usage"]
        by_day = (await get(stack, "usage?by=day"))["usage"]
        only_b = (await get(stack, "usage?by=model&model=b"))["usage"]
    assert [row["model"] for row in by_model] == ["a", "b"]
    row = by_model[0]
    assert (row["requests"], row["ok"], row["errors"]) == (3, 2, 1)
    assert (row["prompt_tokens"], row["generated_tokens"]) == (18, 8)
    assert row["load_s"] == pytest.approx(1.0, abs=0.1)
    assert [(row["day"], row["requests"]) for row in by_day] == [(time.strftime("%Y-%m-%d"), 4)]
    assert [row["model"] for row in only_b] == ["b"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("requests?limit=0", "limit"),
        ("requests?limit=x", "limit"),
        ("requests?limit=1001", "limit"),
        ("requests?status=nonsense", "status"),
        ("requests?since=yesterday", "since"),
        ("requests?before=nobody", "before"),
        ("requests?before=0123456789abcdef", "before"),
        ("usage?by=week", "by"),
        ("usage?since=-1", "since"),
    ],
)
async def test_what_is_not_valid_is_said(autojump_clock: Clock, query: str, param: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        refused = await stack.get(f"/gateway/{query}")
    assert (refused.status, error_of(refused)["code"]) == (400, "invalid_parameter")
    assert error_of(refused)["param"] == param


async def test_what_a_page_may_begin_at_is_said(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        refused = await stack.get("/gateway/requests?before=nobody")
    assert "expected the id of a request, Unix time" in error_of(refused)["message"]
