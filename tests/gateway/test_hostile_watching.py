"""Whoever looks on learns no more than is theirs, and nothing of it can break a request."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio

from tests.support.asking import CHAT, Clock, chat, error_of, read_all
from tests.support.feed_reader import reading
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.history_schema import HistoryConfig
from trio_gateway.server.history import file
from trio_gateway.server.records.request_record import RequestRecord

ANSWER = (
    b'{"model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}'
)
BOSS, ANNA = "a-key-of-the-boss-0123456789", "a-key-of-anna-0123456789"
ACCESS = AccessConfig(
    allowed_hosts=("gateway",),
    api_keys=(
        ApiKey(name="boss", secret=BOSS, admin=True),
        ApiKey(name="anna", secret=ANNA, models=frozenset({"m"})),
    ),
)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def get(stack: Stack, path: str, secret: str = "") -> httpcore.Response:
    headers = [*bearer(secret).items()] if secret else []
    return await stack.http.request("GET", f"http://gateway{path}", headers=headers)


async def test_a_limited_key_learns_no_name_of_what_made_way_for_it(tmp_path: Path) -> None:
    history = HistoryConfig(requests=2, file=tmp_path / "history.db")
    given = config(model("m"), model("secret"), access=ACCESS, history=history)
    async with running_stack(given) as stack:
        stack.engines.load_s = stack.engines.stop_s = 0.0
        stack.engines.scripts = [[ANSWER]] * 9
        await stack.post(CHAT, chat("secret"), bearer(BOSS))
        async with reading(stack, bearer(ANNA)) as reader, reading(stack, bearer(BOSS)) as admin:
            await reader.next("snapshot")
            await admin.next("snapshot")
            swapped = await stack.post(CHAT, chat("m"), bearer(ANNA))
            while (event := await reader.next("request")).data["stage"] != "done":
                pass
            while (event_of_admin := await admin.next("request")).data["stage"] != "done":
                pass
        assert dict(swapped.headers)[b"x-gateway-decision"] == b"swapped"
        assert event.data["decision"] == "swapped"
        assert event_of_admin.data["evicted"] == ["secret:4096"]
        seen = [json.dumps(reader.events)]
        async with reading(stack, bearer(ANNA)) as reader:
            seen.append(json.dumps(await reader.next("snapshot")))
        pages = ("/gateway/requests", "/gateway/usage", "/gateway/models", "/v1/models")
        seen += [(await get(stack, page, ANNA)).content.decode() for page in pages]
        await stack.post(CHAT, chat("m"), bearer(ANNA))
        await stack.post(CHAT, chat("m"), bearer(ANNA))
        await stack.post(CHAT, chat("m"), bearer(ANNA))
        seen.append((await get(stack, "/gateway/requests", ANNA)).content.decode())
        assert len(json.loads(seen[-1])["requests"]) == 4  # the first is in the file only
        assert [text for text in seen if "secret" in text] == []
        of_admin = (await get(stack, "/gateway/requests", BOSS)).content.decode()
        assert "secret:4096" in of_admin


@pytest.mark.parametrize(
    "limit",
    [
        "0",
        "-1",
        "1001",
        "0000000011001",
        "1e3",
        "%C2%B2",
        "9" * 5000,
        "0" * 5000 + "1",
        "0" * 9 + "5",
    ],
)
async def test_a_limit_is_a_limit_however_it_is_written(autojump_clock: Clock, limit: str) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await get(stack, f"/gateway/requests?limit={limit}")
        assert (answer.status, error_of(answer)["code"]) == (400, "invalid_parameter")


@pytest.mark.parametrize("has_file", [True, False])
async def test_any_moment_is_a_moment(tmp_path: Path, has_file: bool) -> None:
    history = HistoryConfig(file=tmp_path / "history.db" if has_file else None)
    async with running_stack(config(model("m"), history=history)) as stack:
        for said in ("9" * 400, "0", "9" * 400 + "d", "1.5d", "99999999999999999h"):
            for name in ("since", "before"):
                answer = await get(stack, f"/gateway/requests?{name}={said}")
                assert (answer.status, b"partial" in answer.content) == (200, False)


HUGE = 10**25
NONSENSE: list[dict[str, Any]] = [
    {"usage": {"prompt_tokens": HUGE, "completion_tokens": HUGE}},
    {"usage": {"prompt_tokens": 9, "completion_tokens": 2**63}},
    {"usage": {"prompt_tokens": 9, "completion_tokens": 4},
     "timings": {"predicted_ms": 5e-324, "prompt_ms": 5e-324, "prompt_n": HUGE, "cache_n": -1}},
    {"usage": {"prompt_tokens": -9, "completion_tokens": -4,
               "prompt_tokens_details": {"cached_tokens": -HUGE}}},
    {"timings": {"prompt_n": HUGE, "cache_n": HUGE, "predicted_n": 10**400, "predicted_ms": 1.0,
                 "draft_n": HUGE, "draft_n_accepted": HUGE}},
    {"usage": {"input_tokens": HUGE, "output_tokens": HUGE, "cache_read_input_tokens": HUGE}},
]  # fmt: skip


@pytest.mark.parametrize("said", NONSENSE, ids=lambda said: json.dumps(said)[:60])
async def test_whatever_an_engine_says_of_its_tokens_breaks_nothing(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    finish = [{"finish_reason": "x" * 100_000, "message": {"content": "Hi"}}]
    body = json.dumps({"choices": finish, **said}).encode()
    history = HistoryConfig(file=tmp_path / "history.db")
    async with running_stack(config(model("m"), history=history)) as stack:
        stack.engines.load_s = 0.0
        stack.engines.scripts = [[body], [b"data: " + body + b"\n\ndata: [DONE]\n\n"], [ANSWER]]
        async with reading(stack) as reader:
            await reader.next("snapshot")
            assert (await stack.post(CHAT, chat())).content == body
            await stack.post(CHAT, chat(stream=True))
            assert (await stack.post(CHAT, chat())).status == 200
            done = 0
            while done < 3:
                done += (await reader.next("request")).data["stage"] == "done"
        for path in ("/metrics", "/gateway/usage", "/gateway/usage?by=day"):
            answer = await get(stack, path)
            assert answer.status == 200
            assert b"partial" not in answer.content
            assert b"inf\n" not in answer.content.lower()
        page = (await get(stack, "/gateway/requests")).content
        assert len(json.loads(page)["requests"]) == 3
        assert len(page) < 10_000
        assert stack.gateway.book.live == {}


async def test_a_name_of_a_model_is_kept_short(tmp_path: Path) -> None:
    history = HistoryConfig(file=tmp_path / "history.db")
    async with running_stack(config(model("m"), history=history)) as stack:
        answer = await stack.post(CHAT, chat("x" * 1_000_000))
        assert answer.status == 404
        await stack.post("/api/chat", chat("y" * 1_000_000))
        page = await get(stack, "/gateway/requests")
        assert len(page.content) < 10_000


async def test_a_listener_that_fails_is_no_concern_of_the_request(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(record: RequestRecord) -> None:
        raise ZeroDivisionError

    heard = list[RequestRecord]()
    async with running_stack(config(model("m"))) as stack:
        stack.gateway.bus.listen(RequestRecord, fail)
        stack.gateway.bus.listen(RequestRecord, heard.append)
        stack.engines.scripts = [[ANSWER], [ANSWER]]
        for _ in range(2):
            assert (await stack.post(CHAT, chat())).content == ANSWER
        await trio.sleep(1.0)
        assert stack.gateway.book.live == {}
    assert len(heard) == 2
    assert sum("ZeroDivisionError" in (line.exc_text or "") for line in caplog.records) == 1


async def test_a_feed_that_fails_begins_anew(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(config(model("m"))) as stack:
        composer = stack.gateway.feed.composer
        async with reading(stack) as reader:
            await reader.next("snapshot")
            with monkeypatch.context() as patched:
                patched.setattr(composer, "scene", None)
                stack.engines.scripts = [[ANSWER], [ANSWER]]
                assert (await stack.post(CHAT, chat())).content == ANSWER
                await trio.sleep(20.0)
            snapshot = await reader.next("snapshot")
            assert len(snapshot.data["recent"]) == 1
            await stack.post(CHAT, chat())
            while (await reader.next("request")).data["stage"] != "done":
                pass
    assert sum("the feed" in line.message for line in caplog.records) == 1


async def test_what_cannot_be_written_does_not_end_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.db"
    async with running_stack(config(model("m"), history=HistoryConfig(file=path))) as stack:
        stack.engines.load_s = 0.0
        with monkeypatch.context() as patched:
            patched.setattr(file, "_values", lambda record: (2**64,) * 15)
            await stack.post(CHAT, chat())
            assert json.loads((await get(stack, "/gateway/usage")).content)["usage"] == []
        await stack.post(CHAT, chat())
        usage = json.loads((await get(stack, "/gateway/usage")).content)["usage"]
        assert [row["requests"] for row in usage] == [1]


async def test_a_line_said_while_it_stops_does_not_tear_the_streams(autojump_clock: Clock) -> None:
    ended = list[bytes]()

    async def follow(stack: Stack, path: str) -> None:
        async with stack.http.stream("GET", f"http://gateway{path}") as answer:
            ended.append(await read_all(answer))

    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        nursery.start_soon(follow, stack, "/gateway/logs?follow=1")
        nursery.start_soon(follow, stack, "/gateway/events")
        await trio.sleep(1.0)
        logging.getLogger("trio_gateway").warning("SIGTERM")
        stack.gateway.begin_shutdown()
    assert len(ended) == 2


PATHS = [
    "/gateway/queue", "/gateway/engines", "/gateway/captures", "/gateway/logs",
    "/gateway/configuration", "/gateway/events/", "/gateway/models/", "/gateway/requests/",
    "/%67ateway/queue", "/gateway%2Fqueue", "/%2567ateway/queue", "/GATEWAY/queue",
    "/%67ateway/captures", "/metrics", "/metrics/", "/%6detrics", "//gateway/queue", "///metrics",
    "/./gateway/queue", "/v1/../gateway/queue", "/gateway/./queue", "/gateway/events/../queue",
    "/upstream/m/metrics", "/gateway/requests/00/../../captures", "/slots",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_no_spelling_of_a_path_opens_a_page_to_a_key(
    autojump_clock: Clock, path: str
) -> None:
    async with running_stack(config(model("m"), access=ACCESS)) as stack:
        for method in ("GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS", "PATCH", "get"):
            for headers in ({}, bearer(ANNA), bearer("x" * 30)):
                answer = await stack.http.request(
                    method, f"http://gateway{path}", headers=[*headers.items()]
                )
                assert answer.status in (400, 401, 403, 404, 405), (method, answer.content)


async def test_another_keys_place_in_the_feed_opens_nothing(autojump_clock: Clock) -> None:
    given = config(model("m"), model("secret"), access=ACCESS)
    async with running_stack(given) as stack:
        async with reading(stack, bearer(BOSS)) as admin:
            first = await admin.next("snapshot")
            await stack.post(CHAT, chat("secret"), bearer(BOSS))
            await admin.next("request")
            headers = {**bearer(ANNA), "Last-Event-ID": first.id}
            async with reading(stack, headers) as reader:
                await stack.post(CHAT, chat("m"), bearer(ANNA))
                while (event := await reader.next("request")).data["stage"] != "done":
                    pass
        assert event.data["model"] == "m"
        assert "secret" not in json.dumps(reader.events)
        (id_,) = [r.id for r in stack.gateway.book.recent if r.model == "secret"]
        for method in ("POST",):
            url = f"http://gateway/gateway/requests/{id_}/cancel"
            answer = await stack.http.request(method, url, headers=[*bearer(ANNA).items()])
            assert (answer.status, error_of(answer)["code"]) == (404, "unknown_request")
        before = await get(stack, f"/gateway/requests?before={id_}", ANNA)
        assert before.status == 400
