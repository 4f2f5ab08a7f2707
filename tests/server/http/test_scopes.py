"""What a request owns and how it ends; and the paths of a gateway that hypercorn has told where it
is mounted (`--root-path`)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.memory_network import MemoryNetwork
from trio_gateway.app import create_app
from trio_gateway.bus import Bus
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.http.cycle import Cycle
from trio_gateway.server.http.scopes import RequestScopes
from trio_gateway.server.http.types import CYCLE_KEY, REQUEST_KEY, AsgiApp, Scope
from trio_gateway.server.records.request_book import RequestBook
from trio_gateway.server.records.request_record import Outcome
from trio_gateway.stop_signals import StopSignals
from trio_gateway.under_hypercorn import HypercornGateway


async def seen_for(path: str, raw_path: bytes, root_path: str) -> Scope:
    """What the gateway gets under the `hypercorn` command."""
    seen: list[Scope] = []

    async def gateway(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)

    app: Any = HypercornGateway(StopSignals(), create_app)
    app._gateway = gateway
    scope = {"type": "http", "path": path, "raw_path": raw_path, "root_path": root_path}
    await app(scope, None, None)
    return seen[0]


@pytest.mark.parametrize("root_path", ["/pre", "pre", "/pre/"])
async def test_a_root_path_is_taken_off(root_path: str) -> None:
    scope = await seen_for("/pre/gateway/a b", b"/pre/gateway/a%20b", root_path)
    assert (scope["path"], scope["raw_path"]) == ("/gateway/a b", b"/gateway/a%20b")
    assert scope["root_path"] == ""  # so nobody takes it off once more


@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        ("/health", b"/health"),  # a proxy has taken it off
        ("/pre", b"/pre"),
        ("/prefix/health", b"/prefix/health"),
        ("/pre/health", b"/%70re/health"),
    ],
)
async def test_another_path_stays_as_it_is(path: str, raw_path: bytes) -> None:
    scope = await seen_for(path, raw_path, "/pre")
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == (path, raw_path, "")
    assert (await seen_for(path, raw_path, ""))["path"] == path


@pytest.mark.parametrize(
    ("is_complete", "outcome"), [(True, Outcome.OK), (False, Outcome.CLIENT_GONE)]
)
async def test_a_client_that_goes_with_its_whole_answer_was_served(
    is_complete: bool, outcome: Outcome
) -> None:
    book, gone = RequestBook(Bus()), trio.CancelScope()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        book.begin(scope[REQUEST_KEY].record, ENDPOINTS[0], None, gone.cancel)
        gone.cancel(reason="the client is gone")
        await trio.lowlevel.checkpoint()

    cycle = SimpleNamespace(
        is_complete=is_complete, began_at=trio.current_time(), head=SimpleNamespace(length=0)
    )
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    with gone:
        receive: Any = trio.sleep_forever
        await RequestScopes(app, book=book)({**scope, CYCLE_KEY: cycle}, receive, receive)
    (record,) = book.recent
    assert record.outcome is outcome


ASKED = b"GET /%b HTTP/1.1\r\nHost: gateway\r\n\r\n"


async def said_to(app: AsgiApp, *paths: bytes) -> list[bytes]:
    """What one connection answers to requests that are sent one after the other."""
    answers = []
    async with trio.open_nursery() as nursery:
        client = MemoryNetwork(nursery, RequestScopes(app)).connect()
        for path in paths:
            await client.send_all(ASKED % path)
            await trio.testing.wait_all_tasks_blocked()
            answers.append(bytes(await client.receive_some(65536)))
        await client.send_eof()
    return answers


async def answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})


@pytest.mark.parametrize("path", [b"waits", b"ends"])
async def test_a_connection_goes_on_after_a_request_that_was_cancelled(
    autojump_clock: trio.testing.MockClock, path: bytes
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["path"] == "/waits":
            scope[REQUEST_KEY].cancel()
            await trio.sleep_forever()
        await answer(send)
        if scope["path"] == "/ends":  # before it notices
            scope[REQUEST_KEY].cancel()

    first, *others = await said_to(app, path, b"", path, b"")
    assert first.startswith(b"HTTP/1.1 499" if path == b"waits" else b"HTTP/1.1 200")
    assert others[1][:12] == first[:12]
    for other in others[0], others[2]:
        assert other.startswith(b"HTTP/1.1 200")
        assert other.endswith(b"answer")


async def test_who_cancels_a_request_that_is_over_cancels_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cycles: list[Cycle] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        cycles.append(scope[CYCLE_KEY])
        for before in cycles[:-1]:
            before.cancel("it was another one")
        await trio.lowlevel.checkpoint()
        await answer(send)

    for said in await said_to(app, b"", b"", b""):
        assert said.startswith(b"HTTP/1.1 200")
