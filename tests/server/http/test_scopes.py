"""The paths of a gateway that hypercorn has told where it is mounted (`--root-path`)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from trio_gateway.app import create_app
from trio_gateway.bus import Bus
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.http.scopes import RequestScopes
from trio_gateway.server.http.types import CYCLE_KEY, REQUEST_KEY, Scope
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

    cycle = SimpleNamespace(scope=gone, is_complete=is_complete, began_at=trio.current_time())
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    with gone:
        receive: Any = trio.sleep_forever
        await RequestScopes(app, book=book)({**scope, CYCLE_KEY: cycle}, receive, receive)
    (record,) = book.recent
    assert record.outcome is outcome
