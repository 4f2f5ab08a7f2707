"""`/gateway/captures`: what is recorded, for how long, and what never is."""

from __future__ import annotations

import gc
import json
import logging
from typing import Any

import pytest
import trio

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of, stream
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.server.history import recorder as recorder_module
from trio_gateway.server.history.recorder import Capture

CAPTURES = "/gateway/captures"
ANSWER = b'{"model":"m","choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}'


async def begin(stack: Stack, **wanted: Any) -> dict[str, Any]:
    response = await stack.post(CAPTURES, json.dumps({"model": "m", **wanted}).encode())
    assert response.status == 200, response.content
    found: dict[str, Any] = json.loads(response.content)
    return found


async def state(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await stack.get(CAPTURES)).content)
    return found


async def captured(stack: Stack) -> list[dict[str, Any]]:
    captures: list[dict[str, Any]] = (await state(stack))["captures"]
    return captures


async def test_the_next_requests_of_the_model_are_recorded_and_no_others(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_stack(config(model("m"), model("other"))) as stack:
        stack.engines.scripts = [[ANSWER] for _ in range(6)]
        await stack.post(CHAT, chat(messages=[{"role": "user", "content": "before"}]))
        begun = await begin(stack, count=2)
        assert (begun["recording"]["model"], begun["recording"]["left"]) == ("m", 2)
        assert begun["captures"] == []
        for name, text in (("other", "others"), ("m", "first"), ("m", "second"), ("m", "third")):
            await stack.post(CHAT, chat(name, messages=[{"role": "user", "content": text}]))
        first, second = await captured(stack)
        recording = (await state(stack))["recording"]
    said = [json.loads(c["request"]["text"])["messages"][0]["content"] for c in (first, second)]
    assert said == ["first", "second"]
    assert first["answer"] == {"text": ANSWER.decode(), "bytes": len(ANSWER), "left_out": 0}
    assert (first["status"], first["content_type"]) == (200, "application/json")
    assert (first["endpoint"], first["model"], first["is_over"]) == ("chat/completions", "m", True)
    assert recording["left"] == 0
    assert recording["bytes"] == sum(
        c[w]["bytes"] for c in (first, second) for w in ("request", "answer")
    )
    lines = [r for r in caplog.records if "captures are on" in r.message]
    assert [r.levelno for r in lines] == [logging.WARNING]


async def test_a_stream_is_seen_while_it_comes(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        await begin(stack, seconds=1000)
        stack.engines.scripts = [[EVENT, 10.0, DONE]]
        nursery.start_soon(stream, stack, chat(stream=True))
        await trio.sleep(5.0)
        (capture,) = await captured(stack)
        assert (capture["answer"]["text"], capture["is_over"]) == (EVENT.decode(), False)
        await trio.sleep(10.0)
        (capture,) = await captured(stack)
        assert (capture["answer"]["text"], capture["is_over"]) == ((EVENT + DONE).decode(), True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", chat(stream=False)),
        ("/upstream/m/v1/chat/completions", chat()),
        ("/v1/completions", chat(prompt="Hi")),
    ],
)
async def test_so_are_those_of_other_endpoints(
    autojump_clock: Clock, path: str, body: bytes
) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[ANSWER]]
        await begin(stack)
        await stack.post(path, body)
        (capture,) = await captured(stack)
    assert capture["request"]["text"] == body.decode()
    assert capture["answer"]["text"] == ANSWER.decode()


async def test_an_error_is_recorded_as_well(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.load_s = 1e6
        await begin(stack, seconds=3600)
        answer = await stack.post(CHAT, chat())
        (capture,) = await captured(stack)
    assert answer.status == capture["status"] == 504
    assert capture["answer"]["text"] == answer.content.decode()


async def test_all_is_gone_when_the_time_is_up(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [[ANSWER], [EVENT, 40.0, EVENT, 1000.0, DONE]]
        await begin(stack, seconds=30)
        await stack.post(CHAT, chat())
        nursery.start_soon(stream, stack, chat(stream=True))
        await trio.sleep(15.0)
        assert len(await captured(stack)) == 2
        await trio.sleep(50.0)
        assert stack.gateway.recorder._recording is None
        assert await state(stack) == {"recording": None, "captures": []}
        live = stack.gateway.book.live
        held = [o for o in gc.get_objects() if isinstance(o, Capture) and o._record.id in live]
        assert [one.row().request.text + one.row().answer.text for one in held] == [""]
        nursery.cancel_scope.cancel(reason="the test is over")
    assert [r.message for r in caplog.records if "captures are off" in r.message] != []


async def test_delete_forgets_and_a_new_one_takes_the_place(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"), model("n"))) as stack:
        stack.engines.scripts = [[ANSWER] for _ in range(3)]
        await begin(stack, seconds=10)
        await stack.post(CHAT, chat())
        assert (await begin(stack, model="n", seconds=100))["captures"] == []
        await trio.sleep(20.0)  # the first one's time
        await stack.post(CHAT, chat("n"))
        assert len(await captured(stack)) == 1
        deleted = await stack.http.request("DELETE", f"http://gateway{CAPTURES}")
        assert json.loads(deleted.content) == {"recording": None, "captures": []}
        await stack.post(CHAT, chat("n"))
        assert await captured(stack) == []


async def test_it_holds_no_more_than_its_bound(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_BYTES", 300)
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[ANSWER] for _ in range(4)]
        await begin(stack)
        for _ in range(4):
            await stack.post(CHAT, chat())
        captures = await captured(stack)
        held = (await state(stack))["recording"]["bytes"]
    kept = [capture[which] for capture in captures for which in ("request", "answer")]
    assert held == sum(one["bytes"] for one in kept) == 300
    sizes = [len(chat()), len(ANSWER)] * 4
    assert [one["bytes"] + one["left_out"] for one in kept] == sizes


async def test_nobody_looks_on_while_it_is_off(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        watched: list[object] = []
        stack.gateway.recorder.watch = lambda *asked: watched.append(asked)  # type: ignore[method-assign]
        await stack.post(CHAT, chat())
        assert watched == []
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_feed_says_that_it_is_on(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        begun = await begin(stack, count=3)
        scene = stack.gateway.feed.composer.scene(None)
        assert scene.captures is not None
        assert (scene.captures.model, scene.captures.left) == ("m", 3)
        assert scene.captures.until_s == begun["recording"]["until_s"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 404, "model_not_found"),
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"model": "m", "count": 0}, 400, "invalid_parameter"),
        ({"model": "m", "seconds": 1e9}, 400, "invalid_parameter"),
        ({"model": "m", "count": "x"}, 400, "invalid_json"),
        ({"model": "m", "bodies": True}, 400, "invalid_json"),
    ],
)
async def test_what_is_not_valid_is_said(
    autojump_clock: Clock, body: dict[str, Any], status: int, code: str
) -> None:
    async with running_stack(config(model("m"), model("n"))) as stack:
        refused = await stack.post(CAPTURES, json.dumps(body).encode())
        assert (refused.status, error_of(refused)["code"]) == (status, code)
        assert (await state(stack))["recording"] is None


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_it_is_for_admins_only(autojump_clock: Clock, method: str) -> None:
    keys = (
        ApiKey(name="boss", secret="a-key-of-the-boss-0123456789", admin=True),
        ApiKey(name="anna", secret="a-key-of-anna-0123456789"),
    )
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=keys)
    async with running_stack(config(model("m"), access=access)) as stack:
        for key in keys:
            headers = [("Authorization", f"Bearer {key.secret}")]
            answer = await stack.http.request(
                method, f"http://gateway{CAPTURES}", content=b'{"model":"m"}', headers=headers
            )
            assert answer.status == (200 if key.admin else 403)
