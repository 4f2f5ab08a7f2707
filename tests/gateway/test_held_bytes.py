"""All requests share what may be held of them, in memory and in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request, TextMessage

from tests.support.asking import CHAT, DONE, EVENT, Clock, chat
from tests.support.forms import BLOB, TYPE, form, part
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.server.dumps import DumpWriter
from trio_gateway.server.forms import spool
from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.inbox import INBOX_MAX_BYTES, ReadAhead
from trio_gateway.server.http.wire import READ_BYTES

LIMIT = 1_000_000
JSON = "application/json"
AUDIO = "/v1/audio/transcriptions"
FILE = part("file", BLOB, '; filename="a.wav"')
MODEL = part("model", b"m")


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The virtual clock does not wait for threads."""

    async def run(work: Callable[[], object]) -> object:
        await trio.lowlevel.checkpoint()
        return work()

    monkeypatch.setattr(spool, "_in_thread", run)


def limited(**server: Any) -> Any:
    return config(model("m"), **{"max_buffered_bytes": LIMIT, **server})


async def answer_to(stack: Stack, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Of a request that may be sent in part: what comes for it."""
    client = stack.network.connect()
    with trio.fail_after(1000):
        await client.send_all(sent)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await client.receive_some(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        while len(body) < int(headers.get("content-length", 0)):
            body += await client.receive_some(65536)
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    return int(lines[0].split()[1]), headers, body


def head(path: str, length: int | None, kind: str = JSON, method: str = "POST") -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = (f"{method} {path} HTTP/1.1", "Host: gateway", f"Content-Type: {kind}", framing, "", "")
    return "\r\n".join(lines).encode()


def chunked(data: bytes, size: int = 50_000) -> bytes:
    cut = [data[n : n + size] for n in range(0, len(data), size)]
    return b"".join([b"%x\r\n%b\r\n" % (len(c), c) for c in cut]) + b"0\r\n\r\n"


PATHS = [
    CHAT, "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens", "/api/chat", "/api/generate", "/api/embed", "/api/show",
    "/upstream/m/anything", "/gateway/explain", "/tokenize", "/apply-template", "/infill",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_finds_no_room_is_refused_before_it_is_read(
    autojump_clock: Clock, path: str
) -> None:
    async with running_stack(limited()) as stack:
        other = stack.gateway.budget.hold("another")
        other.take(LIMIT - 1000)
        status, headers, body = await answer_to(stack, head(path, 1001))
        assert (status, headers["retry-after"]) == (503, "2")
        said = json.loads(body)["error"]
        assert "server.max_buffered" in (said if isinstance(said, str) else said["message"])
        status, headers, _ = await answer_to(stack, head(path, None) + chunked(b" " * 1001))
        assert (status, headers["retry-after"]) == (503, "2")
        assert stack.gateway.budget.memory.held == LIMIT - 1000
        assert stack.gateway.budget.memory.refused == 2
        other.close()
        assert (await answer_to(stack, head(path, 2) + b"{}"))[0] != 503


async def test_a_body_larger_than_all_of_it_is_refused_for_good(autojump_clock: Clock) -> None:
    async with running_stack(limited()) as stack:
        status, headers, body = await answer_to(stack, head(CHAT, LIMIT + 1))
        assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")
        assert "retry-after" not in headers


async def test_a_body_is_held_until_its_request_is_over(autojump_clock: Clock) -> None:
    data = chat(user="x" * 100_000)
    async with running_stack(limited()) as stack:
        budget = stack.gateway.budget
        stack.engines.scripts = [[5.0, b"{}"]]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_to, stack, head(CHAT, len(data)) + data)
            await trio.sleep(1)
            assert budget.memory.held == len(data)
            assert json.loads((await stack.get("/gateway/queue")).content)["held"] == {
                "buffered_bytes": len(data), "max_buffered_bytes": LIMIT, "spooled_bytes": 0,
                "max_spooled_bytes": 10 * 100 * 1024**2, "refused": 0,
            }  # fmt: skip
        assert budget.memory.held == 0


async def test_one_client_leaves_half_to_others(autojump_clock: Clock) -> None:
    async with running_stack(limited()) as stack:
        waiting = [stack.network.connect() for _ in range(3)]
        for client in waiting:
            await client.send_all(head(CHAT, LIMIT // 6))
        await trio.testing.wait_all_tasks_blocked()
        assert (await answer_to(stack, head(CHAT, LIMIT // 6)))[0] == 503
        stack.gateway.budget.hold("another").take(LIMIT // 2 - 10)
        for client in waiting:
            await client.aclose()
        await trio.sleep(1)
        assert stack.gateway.budget.memory.held == LIMIT // 2 - 10


# -- forms ----------------------------------------------------------------------------------------


def takes_forms(stack: Stack) -> None:
    stack.engines.kind.endpoints |= {"audio/transcriptions"}


async def test_a_form_whose_model_comes_too_late_is_refused_when_there_is_no_room(
    autojump_clock: Clock,
) -> None:
    data = form(FILE, MODEL)
    given = limited(max_buffered_bytes=10**8, max_spooled_bytes=len(data) - 10)
    async with running_stack(given) as stack:
        takes_forms(stack)
        stack.gateway.budget.hold("another").take_file(len(data) // 2)
        status, headers, body = await answer_to(stack, head(AUDIO, len(data), TYPE) + data)
        assert (status, headers["retry-after"]) == (503, "2")
        assert "server.max_spooled" in json.loads(body)["error"]["message"]
        assert stack.gateway.budget.memory.held == 0
        assert stack.gateway.budget.files.held == len(data) // 2


async def test_a_form_whose_model_is_known_waits_at_the_client_and_goes_through_whole(
    autojump_clock: Clock,
) -> None:
    data = form(MODEL, FILE)
    given = limited(max_buffered_bytes=10**8, max_spooled_bytes=10)
    async with running_stack(given) as stack:
        takes_forms(stack)
        stack.engines.scripts = [[b'{"text":"hi"}']]
        status, _, _ = await answer_to(stack, head(AUDIO, len(data), TYPE) + data)
        assert status == 200
        (asked,) = stack.engines.requests
        assert asked[2] == data
        assert stack.gateway.budget.files.held == stack.gateway.budget.memory.held == 0


async def test_a_form_takes_room_for_what_is_kept_in_memory(autojump_clock: Clock) -> None:
    data = form(MODEL, FILE)
    async with running_stack(limited(max_buffered_bytes=spool.MEMORY_BYTES + 10)) as stack:
        takes_forms(stack)
        stack.gateway.budget.hold("another").take(11)
        assert (await answer_to(stack, head(AUDIO, len(data), TYPE)))[0] == 503


# -- answers, dumps -------------------------------------------------------------------------------

LONG = b'{"choices":[],"x":"' + b"y" * 300_000 + b'"}'


async def test_an_answer_that_finds_no_room_is_passed_on_as_it_comes(autojump_clock: Clock) -> None:
    for taken in (0, LIMIT - 100_000):
        async with running_stack(limited()) as stack:
            stack.gateway.budget.hold("another").take(taken)
            pieces = [LONG[n : n + 50_000] for n in range(0, len(LONG), 50_000)]
            stack.engines.scripts, stack.engines.chunked = [pieces], True
            answer = await stack.post(CHAT, chat())
            assert (answer.status, answer.content) == (200, LONG)
            await trio.testing.wait_all_tasks_blocked()
            assert stack.gateway.budget.memory.held == taken


async def test_a_dump_has_as_much_of_an_answer_as_there_is_room_for(
    autojump_clock: Clock, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = []
    monkeypatch.setattr(DumpWriter, "submit", lambda _, record: records.append(record))
    async with running_stack(limited(dumps_dir=tmp_path)) as stack:
        stack.gateway.budget.hold("another").take(LIMIT - 10 * len(EVENT))
        stack.engines.scripts = [[EVENT] * 100 + [DONE]]
        answer = await stack.post(CHAT, chat(stream=True))
        assert answer.content.count(b"tok") == 100
        (record,) = records
        assert 0 < record.answer.count(b"tok") < 10
        assert record.left_out + len(record.answer) == len(answer.content)


# -- WebSockets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, bytes])
async def test_a_message_that_finds_no_room_ends_its_websocket(
    autojump_clock: Clock, kind: type
) -> None:
    got = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": []})
        while (message := await receive())["type"] == "websocket.receive":
            got.append(message)
        got.append(message)

    async with running_stack(limited()) as stack:
        stack.gateway.front.guard = app  # what is behind it holds nothing itself
        budget = stack.gateway.budget
        client, protocol = stack.network.connect(), WSConnection(ConnectionType.CLIENT)
        await client.send_all(protocol.send(Request(host="gateway", target="/v1/realtime")))
        protocol.receive_data(await client.receive_some(65536))
        assert [type(event) for event in protocol.events()] == [AcceptConnection]
        text = "x" * 300_000
        message = TextMessage(text) if kind is str else BytesMessage(bytearray(text, "ascii"))
        for _ in range(20):  # one after the other is no trouble
            await client.send_all(protocol.send(message))
        await trio.testing.wait_all_tasks_blocked()
        assert len(got) == 20
        assert budget.memory.held == 0
        another = budget.hold("another")
        another.take(LIMIT - 300_000 + 1)
        await client.send_all(protocol.send(message))
        protocol.receive_data(await client.receive_some(65536))
        (said,) = protocol.events()
        assert isinstance(said, CloseConnection)
        assert (said.code, "max_buffered" in (said.reason or "")) == (1013, True)
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert len(got) == 21
        another.close()
        assert budget.memory.held == 0


# -- what is read ahead ---------------------------------------------------------------------------


async def test_what_clients_send_ahead_waits_unread_if_there_is_much_of_it(
    autojump_clock: Clock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(limited()) as stack:
        stack.network.connections = connections = ClientConnections(
            stack.gateway.config.server.limits, max_buffered_bytes=8 * 3 * INBOX_MAX_BYTES
        )
        monkeypatch.setattr(stack.engines, "next_script", lambda: iter([1.0, b"{}"]))
        many = (head(CHAT, len(chat())) + chat()) * 1000
        clients = [stack.network.connect(buffered=False) for _ in range(8)]
        for client in clients:
            nursery.start_soon(client.send_all, many)
        await trio.testing.wait_all_tasks_blocked()
        at_most = 3 * INBOX_MAX_BYTES + 8 * READ_BYTES
        assert 3 * INBOX_MAX_BYTES <= connections.read_ahead.held <= at_most
        other = stack.network.connect(buffered=False)
        nursery.start_soon(other.send_all, head("/health", 0, method="GET"))
        assert (await other.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
        for client in clients:  # and it goes on
            for _ in range(5):
                assert await client.receive_some(65536)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_what_was_read_ahead_is_given_back(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(limited()) as stack:
        ahead = stack.network.connections.read_ahead
        assert isinstance(ahead, ReadAhead)
        monkeypatch.setattr(stack.engines, "next_script", lambda: iter([100.0]))
        client = stack.network.connect()
        await client.send_all((head(CHAT, len(chat())) + chat()) * 3)
        await trio.testing.wait_all_tasks_blocked()
        assert ahead.held > 0
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        assert ahead.held == 0
