"""Hostile requests (tests/hostile_*.py) to one gateway in memory, as bytes on the wire.

Each gets its 4xx in the shape of its API, whoever comes next is served, and no engine sees
anything of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import httptools
import pytest
import trio

from tests.support import hostile_cases, hostile_http, hostile_sizes, hostile_types
from tests.support.asking import CHAT, Clock, chat
from tests.support.fakes import FakeKind
from tests.support.hostile_cases import Case
from tests.support.reading import read_here
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.server.api.endpoints import ENDPOINTS

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PATIENCE_S = 1000.0  # virtual; an idle connection is closed long before
HEALTH_EVERY = 20
ERROR_MAX_BYTES = 5000  # what was sent is not sent back


class Reply(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class _Replies:
    """httptools' callbacks: the answers on one connection."""

    def __init__(self) -> None:
        self.complete: list[Reply] = []
        self._parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.complete.append(Reply(self._parser.get_status_code(), self._headers, self._body))

    def feed(self, data: bytes) -> list[Reply]:
        self._parser.feed_data(data)
        return self.complete


@pytest.fixture(autouse=True)
def _as_served(monkeypatch: pytest.MonkeyPatch) -> None:
    served = frozenset(row.name for row in ENDPOINTS)
    monkeypatch.setattr(FakeKind, "endpoints", served)


async def exchange(stack: Stack, data: bytes) -> list[Reply]:
    """All that the gateway answers on one connection until it closes it."""
    client = stack.network.connect()
    received = b""
    with trio.fail_after(PATIENCE_S):
        await client.send_all(data)
        while piece := await client.receive_some(65536):
            received += piece
    await client.aclose()
    return _Replies().feed(received) if received else []


def fault_in(case: Case, replies: list[Reply]) -> str | None:
    """What is wrong with the answers, if anything is."""
    statuses = [reply.status for reply in replies]
    if not replies:
        return None if 0 in case.statuses else "no answer"
    if statuses[0] not in case.statuses:
        return f"status {statuses[0]}: {replies[0].body[:200]!r}"
    if case.answers is not None and len(replies) != case.answers:
        return f"{len(replies)} answers: {statuses}"
    body = replies[0].body
    if len(body) > ERROR_MAX_BYTES:
        return f"an answer of {len(body)} bytes"
    if statuses[0] < 400:
        return None
    try:
        return None if has_shape(json.loads(body), case.path) else f"the shape of {body[:200]!r}"
    except ValueError:
        return f"no JSON: {body[:200]!r}"


def has_shape(body: Any, path: str) -> bool:
    if path.startswith("/api/"):
        return set(body) == {"error"} and isinstance(body["error"], str)
    error = body["error"]
    if path.startswith("/v1/messages"):
        return body["type"] == "error" and set(error) == {"type", "message"}
    fields = set(error)
    if error["type"] == "exceed_context_size_error":  # llama.cpp's clients read these as well
        fields -= {"n_prompt_tokens", "n_ctx"}
    return fields == {"message", "type", "param", "code"} and isinstance(error["message"], str)


async def faults_of(cases: Iterable[Case]) -> list[str]:
    faults = []
    async with running_stack(config(model("m"))) as stack:
        assert (await stack.post(CHAT, chat())).status == 200  # an engine runs: it could be reached
        for number, case in enumerate(cases):
            stack.engines.requests.clear()
            try:
                fault = fault_in(case, await exchange(stack, case.data))
            except (trio.TooSlowError, httptools.HttpParserError, KeyError, TypeError) as error:
                fault = repr(error)
            if stack.engines.requests and not case.reaches:
                fault = f"{fault or 'fine'}, but an engine got {stack.engines.requests[0][:1]}"
            if fault is not None:
                faults.append(f"{case.name[:150]}: {fault}")
            if number % HEALTH_EVERY == 0 or case.is_raw:
                assert [r.status for r in await exchange(stack, HEALTH)] == [200], case.name
        assert len(stack.engines.processes) == 1
        assert (await stack.post(CHAT, chat())).status == 200
    return faults


GROUPS = {
    "bodies": hostile_cases.bodies,
    "wrong types": hostile_types.wrong_types,
    "sizes": hostile_sizes.sizes,
    "names": hostile_sizes.names,
    "upstream": hostile_http.upstream,
    "framing": hostile_http.framing,
    "requests": hostile_http.requests,
}


@pytest.mark.untraced
@pytest.mark.parametrize("group", GROUPS)
async def test_each_is_refused_and_reaches_no_engine(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    read_here(monkeypatch)
    faults = await faults_of(GROUPS[group]())
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("group", ["bodies", "wrong types", "names", "upstream"])
async def test_so_it_is_where_bodies_are_too_large_for_the_event_loop(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    read_here(monkeypatch, everything=True)
    # A body for the event loop only is all that one may be: any other is a 413.
    faults = await faults_of(case for case in GROUPS[group]() if case.path != "/api/show")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)


def test_there_are_enough_of_them() -> None:
    counts = {group: len([*cases()]) for group, cases in GROUPS.items()}
    assert sum(counts.values()) >= 300, counts
