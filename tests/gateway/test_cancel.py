"""Wherever a request is when somebody cancels it: its client is told, and its engine is free."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import httpcore
import pytest
import trio
import trio.testing

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat, error_of
from tests.support.forms import TYPE, form, part
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.keepalive import KeepaliveStyle
from trio_gateway.server.forms import spool
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import Outcome

RESPONSES_EVENT = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","delta":"tok"}\n\n'
)
MESSAGES_EVENT = b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n'
FORM = form(part("model", b"m"), part("file", b"abc", '; filename="a.wav"'))
LOAD_S = 60.0
SLOW: list[bytes | float] = [EVENT, 1000.0, DONE]


class Case(NamedTuple):
    path: str
    body: bytes
    script: Iterable[bytes | float] = (1000.0, b"{}")
    kind: str = "application/json"


WHOLE = {
    "chat": Case(CHAT, chat()),
    "completions": Case("/v1/completions", chat(prompt="Hi")),
    "embeddings": Case("/v1/embeddings", json.dumps({"model": "m", "input": "Hi"}).encode()),
    "responses": Case("/v1/responses", json.dumps({"model": "m", "input": "Hi"}).encode()),
    "messages": Case("/v1/messages", chat()),
    "rerank": Case("/v1/rerank", b'{"model":"m","query":"a","documents":["b"]}'),
    "Ollama": Case("/api/chat", chat(stream=False)),
    "a form": Case("/v1/audio/transcriptions", FORM, kind=TYPE),
    "upstream": Case("/upstream/m/v1/chat/completions", chat()),
}
STREAMS = {
    "chat": Case(CHAT, chat(stream=True), SLOW),
    "completions": Case("/v1/completions", chat(prompt="Hi", stream=True), SLOW),
    "responses": Case(
        "/v1/responses",
        json.dumps({"model": "m", "input": "Hi", "stream": True}).encode(),
        [RESPONSES_EVENT, 1000.0],
    ),
    "messages": Case("/v1/messages", chat(stream=True), [MESSAGES_EVENT, 1000.0]),
    "Ollama": Case("/api/chat", chat(), SLOW),
    "upstream": Case("/upstream/m/v1/chat/completions", chat(stream=True), SLOW),
}  # fmt: skip


def serving_all(stack: Stack) -> Stack:
    stack.engines.kind.endpoints |= {
        "embeddings", "responses", "messages", "rerank", "audio/transcriptions",
    }  # fmt: skip
    return stack


class Answered:
    """What came of a request that was sent in a task."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.is_torn = False
        self.at = 0.0

    async def ask(self, stack: Stack, case: Case) -> None:
        url, headers = f"http://gateway{case.path}", [("Content-Type", case.kind)]
        async with stack.http.stream("POST", url, content=case.body, headers=headers) as response:
            self.status = response.status
            try:
                async for piece in response.aiter_stream():
                    self.body += piece
            except httpcore.RemoteProtocolError:
                self.is_torn = True
        self.at = trio.current_time()

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def last_event(self) -> dict[str, Any]:
        text = self.body.decode().strip()
        last = text.splitlines()[-1]
        found: dict[str, Any] = json.loads(last.removeprefix("data:"))
        return found


async def cancel_the_one(stack: Stack, stage: str) -> str:
    """Its id."""
    (id_,) = stack.gateway.book.live
    answer = await stack.post(f"/gateway/requests/{id_}/cancel", b"")
    assert json.loads(answer.content) == {"id": id_, "cancelled": True, "stage": stage}
    return id_


def check_all_is_given_back(stack: Stack, id_: str) -> None:
    assert stack.gateway.book.live == {}
    record = stack.gateway.book.recent[-1]
    assert (record.id, record.error) == (id_, "request_cancelled")
    assert record.outcome is not None
    assert record.outcome.value == "cancelled"
    assert stack.manager.overview.tickets() == []
    assert [e.leases for e in stack.manager.overview.engines() if e.leases] == []
    assert [e for e in stack.engines.exchanges if e.closed_at is None] == []


def check_error(name: str, answered: Answered) -> None:
    assert answered.status == 499
    error = answered.json["error"]
    if name == "Ollama":
        assert "cancelled" in error
    elif name == "messages":
        assert answered.json["type"] == "error"
        assert "cancelled" in error["message"]
    else:
        assert error["code"] == "request_cancelled"
        assert "cancelled" in error["message"]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("stage", ["waiting", "reading"])
async def test_an_answer_that_has_not_begun_becomes_an_error(
    autojump_clock: Clock, name: str, stage: str
) -> None:
    case, answered = WHOLE[name], Answered()
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        serving_all(stack).engines.load_s = LOAD_S
        stack.engines.scripts = [case.script]
        nursery.start_soon(answered.ask, stack, case)
        await trio.sleep(10.0 if stage == "waiting" else LOAD_S + 10.0)
        began = trio.current_time()
        id_ = await cancel_the_one(stack, stage)
        await trio.testing.wait_all_tasks_blocked()
        assert answered.at == pytest.approx(began, abs=0.5)
        check_error(name, answered)
        check_all_is_given_back(stack, id_)


@pytest.mark.parametrize("style", KeepaliveStyle)
@pytest.mark.parametrize("name", [name for name in STREAMS if name != "upstream"])
async def test_a_stream_that_waits_ends_with_an_error(
    autojump_clock: Clock, name: str, style: KeepaliveStyle
) -> None:
    case, answered = STREAMS[name], Answered()
    given = config(model("m"), stream_keepalive_style=style)
    async with running_stack(given) as stack, trio.open_nursery() as nursery:
        serving_all(stack).engines.load_s = LOAD_S
        nursery.start_soon(answered.ask, stack, case)
        await trio.sleep(35.0)
        assert answered.status == 200
        id_ = await cancel_the_one(stack, "waiting")
        await trio.testing.wait_all_tasks_blocked()
        check_last_event(name, answered)
        check_all_is_given_back(stack, id_)


def check_last_event(name: str, answered: Answered) -> None:
    assert answered.status == 200
    assert not answered.is_torn
    assert b"[DONE]" not in answered.body
    event = answered.last_event
    if name == "Ollama":
        assert "cancelled" in event["error"]
        return
    if name == "messages":
        assert b"event: error\n" in answered.body
        assert event["type"] == "error"
    else:
        assert event["error"]["code"] == "request_cancelled"
    if name == "responses":
        assert event["type"] == "response.failed"
        assert event["response"]["error"]["code"] == "request_cancelled"
    assert "cancelled" in event["error"]["message"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_under_way_ends_with_an_error(
    autojump_clock: Clock, name: str, late: bool
) -> None:
    """`late`: it has had comments before."""
    case, answered = STREAMS[name], Answered()
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        serving_all(stack).engines.load_s = LOAD_S if late else 0.0
        stack.engines.scripts = [case.script]
        nursery.start_soon(answered.ask, stack, case)
        await trio.sleep(LOAD_S + 10.0)
        assert b"tok" in answered.body or name == "messages"
        id_ = await cancel_the_one(stack, "answering")
        await trio.testing.wait_all_tasks_blocked()
        check_last_event(name, answered)
        check_all_is_given_back(stack, id_)
        record = stack.gateway.book.recent[-1]
        assert record.answer_bytes > 0
        assert record.generated == {"upstream": None, "messages": 0}.get(name, 1)


async def test_an_event_that_was_cut_in_the_middle_is_ended_first(autojump_clock: Clock) -> None:
    case, answered = Case(CHAT, chat(stream=True), [EVENT + EVENT[:-9], 1000.0]), Answered()
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        stack.engines.scripts = [case.script]
        nursery.start_soon(answered.ask, stack, case)
        await trio.sleep(10.0)
        await cancel_the_one(stack, "answering")
        await trio.testing.wait_all_tasks_blocked()
        assert answered.body.startswith(EVENT)
        assert b'\n\ndata: {"error"' in answered.body
        check_last_event("chat", answered)


async def test_a_stream_with_no_place_for_an_error_is_torn(autojump_clock: Clock) -> None:
    case, answered = Case(CHAT, chat(), [b'{"a":', 1000.0]), Answered()
    async with running_stack(config(model("m"))) as stack, trio.open_nursery() as nursery:
        stack.engines.more_headers = [(b"content-type", b"audio/wav")]
        stack.engines.chunked = True
        stack.engines.scripts = [case.script]
        nursery.start_soon(answered.ask, stack, case)
        await trio.sleep(10.0)
        id_ = await cancel_the_one(stack, "answering")
        await trio.testing.wait_all_tasks_blocked()
        assert answered.is_torn
        check_all_is_given_back(stack, id_)


async def test_a_client_that_reads_nothing_holds_no_engine_after_it(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[EVENT] * 1000]
        client = stack.network.connect(buffered=False)
        body = chat(stream=True)
        head = b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n"
        await client.send_all(head % (CHAT.encode(), len(body)) + body)
        await trio.sleep(10.0)
        id_ = await cancel_the_one(stack, "answering")
        await trio.sleep(2.0)
        check_all_is_given_back(stack, id_)
        await client.aclose()


async def test_the_connection_serves_on(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        stack.engines.scripts = [[1000.0], [b"{}"]]
        client, body = stack.network.connect(), chat()
        head = b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n"
        asked = head % (CHAT.encode(), len(body)) + body
        await client.send_all(asked)
        await trio.sleep(10.0)
        await cancel_the_one(stack, "reading")
        assert b"HTTP/1.1 499 " in await client.receive_some(65536)
        await client.send_all(asked)
        assert b"HTTP/1.1 200 " in await client.receive_some(65536)


async def test_one_that_is_over_and_one_that_never_was(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        answer = await stack.post(CHAT, chat())
        id_ = dict(answer.headers)[b"x-gateway-request-id"].decode()
        over = await stack.post(f"/gateway/requests/{id_}/cancel", b"")
        unknown = await stack.post("/gateway/requests/0123456789abcdef/cancel", b"")
    assert (over.status, error_of(over)["code"]) == (409, "request_over")
    assert (unknown.status, error_of(unknown)["code"]) == (404, "unknown_request")


KEYS = (
    ApiKey(name="boss", secret="a-key-of-the-boss-0123456789", admin=True),
    ApiKey(name="anna", secret="a-key-of-anna-0123456789", max_parallel=1),
    ApiKey(name="bert", secret="a-key-of-bert-0123456789"),
)


def bearer(name: str) -> dict[str, str]:
    secret = next(key.secret for key in KEYS if key.name == name)
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(("by", "status"), [("boss", 200), ("anna", 200), ("bert", 404)])
async def test_a_key_may_cancel_its_own_and_an_admins_may_cancel_all(
    autojump_clock: Clock, by: str, status: int
) -> None:
    access = AccessConfig(allowed_hosts=("gateway",), api_keys=KEYS)
    async with (
        running_stack(config(model("m"), access=access)) as stack,
        trio.open_nursery() as nursery,
    ):
        stack.engines.scripts = [[50.0, b"{}"]]
        nursery.start_soon(stack.post, CHAT, chat(), bearer("anna"))
        await trio.sleep(10.0)
        (id_,) = stack.gateway.book.live
        answer = await stack.post(f"/gateway/requests/{id_}/cancel", b"", bearer(by))
        assert answer.status == status


class _CancelAtStep(trio.abc.Instrument):
    """Cancels the only request as a task, whichever it is, begins the n-th step since it came."""

    def __init__(self, steps: int, book: RequestBook) -> None:
        self._left, self._book = steps, book
        self.has_cancelled = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._book.live and not self.has_cancelled:
            self._left -= 1
            if self._left == 0:
                self.has_cancelled = True
                (record,) = self._book.live.values()
                self._book.cancel(record)


@pytest.mark.parametrize("name", ["chat", "a stream", "a stream that waits", "Ollama", "upstream"])
async def test_wherever_it_is_cancelled_its_client_learns_how_it_ended(
    autojump_clock: Clock, name: str
) -> None:
    """Each answer is complete, or says so, or is torn; and the next request is served."""
    whole = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
    cases = {
        "chat": Case(CHAT, chat(), [whole]),
        "a stream": Case(CHAT, chat(stream=True), [EVENT, 1.0, EVENT, DONE]),
        "a stream that waits": Case(CHAT, chat(stream=True), [40.0, EVENT, 1.0, DONE]),
        "Ollama": Case("/api/chat", chat(), [EVENT, 1.0, DONE]),
        "upstream": Case(STREAMS["upstream"].path, chat(stream=True), [EVENT, 1.0, DONE]),
    }
    case, seen = cases[name], set[str]()
    async with running_stack(config(model("m"))) as stack:
        for steps in range(1, 500):
            answered, instrument = Answered(), _CancelAtStep(steps, stack.gateway.book)
            stack.engines.scripts = [case.script]
            trio.lowlevel.add_instrument(instrument)
            try:
                with trio.fail_after(1000):
                    await answered.ask(stack, case)
            finally:
                trio.lowlevel.remove_instrument(instrument)
            await trio.testing.wait_all_tasks_blocked()
            record = stack.gateway.book.recent[-1]
            assert stack.gateway.book.live == {}
            assert [e for e in stack.engines.exchanges if e.closed_at is None] == []
            assert [e.leases for e in stack.manager.overview.engines() if e.leases] == []
            assert record.outcome is not None
            seen.add(record.outcome.value)
            if record.outcome is Outcome.CANCELLED:
                assert b"cancelled" in answered.body or answered.is_torn
            else:
                assert record.outcome is Outcome.OK
                assert answered.status == 200
                assert not answered.is_torn
                assert b"cancelled" not in answered.body
            if not instrument.has_cancelled:
                break
    assert seen == {"cancelled", "ok"}
    assert 3 < steps < 499


async def at_once(work: Callable[[], object]) -> object:
    """The virtual clock does not wait for threads."""
    await trio.lowlevel.checkpoint()
    return work()


async def test_one_whose_body_is_still_coming_is_answered(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form that waits for its engine while it is sent, and a chat that has not come."""
    monkeypatch.setattr(spool, "_in_thread", at_once)
    head = b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    whole = part("file", b"x" * 5_000_000, '; filename="a.wav"')
    body = form(part("model", b"m"), whole)
    begun = {
        "waiting": head % (b"/v1/audio/transcriptions", TYPE.encode(), len(body))
        + body[:3_000_000],
        "arriving": head % (CHAT.encode(), b"application/json", 1000) + b'{"model": "m",',
    }
    for stage, sent in begun.items():
        async with running_stack(config(model("m"))) as stack:
            serving_all(stack).engines.load_s = LOAD_S
            client = stack.network.connect()
            await client.send_all(sent)
            await trio.sleep(10.0)
            id_ = await cancel_the_one(stack, stage)
            answer = await client.receive_some(65536)
            assert answer.startswith(b"HTTP/1.1 499 ")
            assert b"request_cancelled" in answer
            await trio.sleep(10.0)  # for the rest of it
            check_all_is_given_back(stack, id_)
            assert stack.gateway.budget.facts()["spooled_bytes"] == 0
