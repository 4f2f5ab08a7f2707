"""Uploads through hypercorn and Quart in memory: backpressure, limits, and every way to end one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from quart import Response, request
from quart_trio import QuartTrio

from tests.support.memory_network import MemoryNetwork
from tests.support.real_sockets import served
from tests.support.turns import longest_wait_s
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.budget import Budget
from trio_gateway.server.http.scopes import RequestScopes
from trio_gateway.server.http.types import (
    FIRST_KEY,
    HALF_CLOSED_S,
    LINGER_S,
    REQUEST_KEY,
    Message,
    Scope,
)
from trio_gateway.server.http.upload import LEAST_BYTES_PER_S, Upload, Uploads

Clock = trio.testing.MockClock
Handler = Callable[[Upload], Awaitable[str]]

MAX_BYTES = 20_000_000
TIMEOUT_S = 30.0


async def read_all(upload: Upload) -> str:
    size = 0
    while piece := await upload.receive():
        size += len(piece)
    return f"{size} bytes"


class Served:
    """An app with one handler for uploads; what became of it stands in `ends`."""

    def __init__(self, nursery: trio.Nursery, handler: Handler) -> None:
        self.uploads = Uploads(MAX_BYTES, TIMEOUT_S)
        self.ends: list[str] = []
        app = QuartTrio("test", static_folder=None)

        @app.post("/")
        async def root() -> Response:
            upload: Upload = request.scope[REQUEST_KEY].upload  # type: ignore[literal-required]
            try:
                answer = await handler(upload)
                assert await request.get_data() == b""
            except ApiError as error:
                self.ends.append(str(error.code))
                return Response(error.encode(), status=error.status)
            except trio.Cancelled:
                self.ends.append("cancelled")
                raise
            self.ends.append("answered")
            return Response(answer)

        @app.get("/")
        async def still_there() -> str:
            return "still there"

        self.network = MemoryNetwork(nursery, RequestScopes(app, self.uploads))  # type: ignore[arg-type]

    def connect(self) -> Any:
        return self.network.connect(buffered=False)


def head(length: int | None, more: str = "") -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    kind = "Content-Type: multipart/form-data; boundary=b"
    return f"POST / HTTP/1.1\r\nHost: gateway\r\n{kind}\r\n{size}\r\n{more}\r\n".encode()


async def answer_of(client: Any) -> tuple[int, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await client.receive_some(65536)
    first, _, body = data.partition(b"\r\n\r\n")
    length = int(first.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += await client.receive_some(65536)
    return int(first.split(b" ")[1]), body


async def code_of(client: Any) -> tuple[int, str]:
    status, body = await answer_of(client)
    return status, json.loads(body)["error"]["code"]


@asynccontextmanager
async def sending(client: Any, *pieces: bytes) -> AsyncIterator[list[int]]:
    """The block goes on while they are sent; the bytes that were."""
    sent = [0]

    async def send() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for piece in pieces:
                await client.send_all(piece)
                sent[0] += len(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        yield sent
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_body_arrives_whole_and_the_connection_is_kept(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    served = Served(nursery, read_all)
    client = served.connect()
    async with sending(client, head(3_000_000), *[b"x" * 100_000] * 30):
        assert await answer_of(client) == (200, b"3000000 bytes")
    async with sending(client, b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"):
        assert await answer_of(client) == (200, b"still there")


async def test_a_body_in_chunks_arrives_whole(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    served = Served(nursery, read_all)
    client = served.connect()
    async with sending(client, head(None), b"5\r\nhello\r\n", b"1\r\n!\r\n0\r\n\r\n"):
        assert await answer_of(client) == (200, b"6 bytes")


async def test_no_more_is_taken_than_somebody_reads(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    go_on = trio.Event()

    async def reads_later(upload: Upload) -> str:
        await upload.receive()
        await go_on.wait()
        return await read_all(upload)

    served = Served(nursery, reads_later)
    client = served.connect()
    async with sending(client, head(10_000_000), *[b"x" * 10_000] * 1000) as sent:
        await trio.sleep(10)
        assert sent[0] < 1_000_000  # hypercorn's queue
        go_on.set()
        assert (await answer_of(client))[0] == 200


async def test_a_client_that_goes_away_in_the_body_cancels_the_request(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    served = Served(nursery, read_all)
    client = served.connect()
    async with sending(client, head(1000), b"half"):
        await trio.testing.wait_all_tasks_blocked()
    await client.aclose()
    await trio.sleep(HALF_CLOSED_S + 0.01)
    assert served.ends == ["cancelled"]


async def test_a_client_that_goes_away_after_the_body_cancels_the_request(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async def works_long(upload: Upload) -> str:
        await read_all(upload)
        await trio.sleep(1000)
        return "late"

    served = Served(nursery, works_long)
    client = served.connect()
    async with sending(client, head(4), b"body"):
        await trio.testing.wait_all_tasks_blocked()
    await client.aclose()
    await trio.sleep(HALF_CLOSED_S + 0.01)
    assert served.ends == ["cancelled"]
    assert trio.current_time() < 1000


@pytest.mark.parametrize("body", [b"", b"body"])
async def test_a_client_that_goes_away_cancels_a_request_that_reads_no_body(
    autojump_clock: Clock, nursery: trio.Nursery, body: bytes
) -> None:
    async def works_long(upload: Upload) -> str:
        await trio.sleep(1000)
        return "late"

    served = Served(nursery, works_long)
    client = served.connect()
    async with sending(client, head(len(body)), body):
        await trio.testing.wait_all_tasks_blocked()
    await client.aclose()
    await trio.sleep(HALF_CLOSED_S + 0.01)
    assert served.ends == ["cancelled"]
    assert trio.current_time() < 1000


async def test_a_body_that_nobody_reads_lets_its_connection_go_on(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async def reads_nothing(upload: Upload) -> str:
        return "done"

    client = Served(nursery, reads_nothing).connect()
    async with sending(client, head(5_000_000), *[b"x" * 100_000] * 50):
        assert await answer_of(client) == (200, b"done")
        await trio.testing.wait_all_tasks_blocked()
    async with sending(client, b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"):
        assert await answer_of(client) == (200, b"still there")
    assert trio.current_time() == 0


async def test_a_small_body_is_one_piece_and_read_at_once(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    asked: list[Message] = []
    messages = iter([{"type": "http.request", "body": b"body", "more_body": True}])

    async def receive() -> Message:
        asked.append(message := next(messages))
        return message

    scope: Scope = {FIRST_KEY: {b"content-length": b"4"}}
    upload = Uploads(MAX_BYTES, TIMEOUT_S).begin(scope, receive, Budget().hold())
    assert await upload.read_all() == b"body"
    assert upload.complete
    assert len(asked) == 1  # the announced length says that no more comes


async def test_a_body_that_is_announced_too_large_is_refused_at_once(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = Served(nursery, read_all).connect()
    async with sending(client, head(MAX_BYTES + 1)):
        assert await code_of(client) == (413, "body_too_large")


async def test_a_body_that_grows_too_large_is_refused_then(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = Served(nursery, read_all).connect()
    async with sending(client, head(None), *[b"186a0\r\n" + b"x" * 100_000 + b"\r\n"] * 300):
        assert await code_of(client) == (413, "body_too_large")


async def test_a_body_that_stops_coming_is_a_408(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = Served(nursery, read_all).connect()
    async with sending(client, head(1000), b"x"):
        assert await code_of(client) == (408, "body_timeout")
        assert trio.current_time() == pytest.approx(TIMEOUT_S)


async def test_a_slow_body_that_comes_is_no_408(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    size = round(LEAST_BYTES_PER_S * (TIMEOUT_S - 1))
    client = Served(nursery, read_all).connect()
    await client.send_all(head(10 * size))
    for _ in range(10):
        await trio.sleep(TIMEOUT_S - 1)
        await client.send_all(b"x" * size)
    assert await answer_of(client) == (200, b"%d bytes" % (10 * size))


async def test_a_body_that_drips_is_a_408(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    client = Served(nursery, read_all).connect()
    await client.send_all(head(10))
    async with trio.open_nursery() as dripping:

        async def drip() -> None:
            while True:
                await trio.sleep(TIMEOUT_S / 3)
                await client.send_all(b"x")

        dripping.start_soon(drip)
        assert (await code_of(client))[0] == 408
        dripping.cancel_scope.cancel(reason="it was refused")
    assert trio.current_time() == pytest.approx(TIMEOUT_S, abs=0.1)


async def test_the_gateway_s_end_refuses_what_is_still_being_sent(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    served = Served(nursery, read_all)
    client = served.connect()
    async with sending(client, head(1000), b"x"):
        await trio.testing.wait_all_tasks_blocked()
        served.uploads.close()
        assert await code_of(client) == (503, "shutting_down")
    assert trio.current_time() == 0


async def test_the_gateway_s_end_lets_a_complete_upload_go_on(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async def works(upload: Upload) -> str:
        await read_all(upload)
        await trio.sleep(1)
        return await read_all(upload)

    served = Served(nursery, works)
    client = served.connect()
    async with sending(client, head(4), b"body"):
        await trio.testing.wait_all_tasks_blocked()
        served.uploads.close()
        assert await answer_of(client) == (200, b"0 bytes")


async def test_an_early_answer_lets_the_rest_arrive(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async def refuses(upload: Upload) -> str:
        await upload.receive()
        raise ApiError(400, "no", code="refused")

    client = Served(nursery, refuses).connect()
    async with sending(client, head(5_000_000), *[b"x" * 100_000] * 50) as sent:
        assert await code_of(client) == (400, "refused")
        await trio.testing.wait_all_tasks_blocked()
        assert sent[0] == len(head(5_000_000)) + 5_000_000
    async with sending(client, b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"):
        assert await answer_of(client) == (200, b"still there")
    assert trio.current_time() == 0


async def test_an_early_answer_does_not_wait_for_a_stalled_rest(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async def refuses(upload: Upload) -> str:
        raise ApiError(400, "no", code="refused")

    client = Served(nursery, refuses).connect()
    async with sending(client, head(5000), b"x"):
        assert await code_of(client) == (400, "refused")
        while await client.receive_some(65536):
            pass
    assert trio.current_time() == pytest.approx(LINGER_S)


async def test_a_client_that_waits_for_100_continue_gets_it(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    client = Served(nursery, read_all).connect()
    async with sending(client, head(4, "Expect: 100-continue\r\n")):
        assert (await client.receive_some(65536)).startswith(b"HTTP/1.1 100")
    async with sending(client, b"body"):
        assert await answer_of(client) == (200, b"4 bytes")


@pytest.mark.slow
@pytest.mark.untraced
async def test_many_small_pieces_are_put_together(autojump_clock: Clock) -> None:
    """Each that is kept would cost more than it has."""
    pieces = [b"a"] * 100_000 + [b"b" * 70_000, b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    upload = Uploads(MAX_BYTES, TIMEOUT_S).begin({FIRST_KEY: {}}, receive, Budget().hold())
    kept = await upload.read_pieces()
    assert b"".join(kept) == b"a" * 100_000 + b"b" * 70_000
    assert len(kept) < 9


# -- tiny chunks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [1, 20])
async def test_bodies_in_tiny_chunks_cost_others_little(clients: int) -> None:
    """However many there are: each read has thousands of them, and 20 clients take turns."""
    chunks = 200_000 // clients

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        data = await scope[REQUEST_KEY].upload.read_all()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<%d>" % len(data)})

    async def ask(port: int) -> None:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        head = b"POST / HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send_all(head + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n")
        assert (await client.receive_some(65536)).endswith(b"<%d>" % chunks)
        await client.aclose()

    async with served(RequestScopes(app), ConnectionLimits()) as port:

        async def ask_all() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(clients):
                    nursery.start_soon(ask, port)

        assert await longest_wait_s(ask_all) < 0.03
