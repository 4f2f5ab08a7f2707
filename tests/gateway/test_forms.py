"""Multipart forms through a whole gateway in memory, to fake engines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.support.asking import error_of, header
from tests.support.forms import BLOB, TYPE, form, part
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.engine.errors import EngineDisconnected
from trio_gateway.server.dumps import DumpRecord, DumpWriter
from trio_gateway.server.forms import spool

Clock = trio.testing.MockClock

AUDIO = "/v1/audio/transcriptions"
EDITS = "/v1/images/edits"
MODEL = part("model", b"m")
SMALL = form(MODEL, part("file", b"abc", '; filename="a.wav"'))
LARGE = form(MODEL, part("file", BLOB, '; filename="a.wav"'))


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The virtual clock does not wait for threads."""

    async def run(work: Callable[[], object]) -> object:
        await trio.lowlevel.checkpoint()
        return work()

    monkeypatch.setattr(spool, "_in_thread", run)


@asynccontextmanager
async def serving(*names: str, **server: Any) -> AsyncIterator[Stack]:
    """A gateway whose engines take forms."""
    async with running_stack(config(*[model(n) for n in names or ("m",)], **server)) as stack:
        stack.engines.kind.endpoints |= {
            "audio/transcriptions", "audio/translations", "images/edits",
        }  # fmt: skip
        yield stack


async def send(
    stack: Stack, body: bytes | AsyncIterator[bytes], path: str = AUDIO, kind: str = TYPE
) -> httpcore.Response:
    url, headers = f"http://gateway{path}", [("Content-Type", kind)]
    return await stack.http.request("POST", url, content=body, headers=headers)


async def pieces_of(*pieces: bytes | trio.Event | Exception) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, trio.Event):
            await piece.wait()
        elif isinstance(piece, Exception):
            raise piece
        else:
            for begin in range(0, len(piece), 50_000):
                yield piece[begin : begin + 50_000]


@pytest.mark.parametrize(
    "path", [AUDIO, "/v1/audio/translations", EDITS, AUDIO[3:], "/audio/translations", EDITS[3:]]
)
@pytest.mark.parametrize("body", [SMALL, LARGE])
async def test_a_form_reaches_its_engine_byte_by_byte(
    autojump_clock: Clock, path: str, body: bytes
) -> None:
    async with serving() as stack:
        response = await send(stack, body, path)
        assert response.status == 200
        assert header(response, "X-Gateway-Model") == "m"
        ((target, headers, got),) = stack.engines.requests
    assert target == "/v1/" + path.removeprefix("/v1").removeprefix("/")
    assert headers == {b"content-type": TYPE.encode()}
    assert got == body


@pytest.mark.parametrize(
    "kind", ['Multipart/Form-Data; Boundary="bound"', f"{TYPE}; charset=utf-8"]
)
async def test_an_engine_gets_the_content_type_written_anew(
    autojump_clock: Clock, kind: str
) -> None:
    async with serving() as stack:
        assert (await send(stack, SMALL, kind=kind)).status == 200
        assert stack.engines.requests[0][1] == {b"content-type": TYPE.encode()}


async def test_two_content_types_are_refused(autojump_clock: Clock) -> None:
    kinds = [("Content-Type", TYPE), ("Content-Type", "multipart/form-data; boundary=other")]
    async with serving() as stack:
        for headers in (kinds, kinds[::-1]):
            response = await stack.http.request(
                "POST", f"http://gateway{AUDIO}", content=SMALL, headers=headers
            )
            assert (response.status, error_of(response)["code"]) == (400, "invalid_form")
        assert stack.engines.requests == []


@pytest.mark.parametrize("kind", ["text/plain", TYPE, "application/x-www-form-urlencoded"])
async def test_a_json_body_goes_to_the_engine_as_json_whatever_it_says(
    autojump_clock: Clock, kind: str
) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "&model=other&"}]}'
    async with serving() as stack:
        assert (await send(stack, body, "/v1/chat/completions", kind)).status == 200
        assert stack.engines.requests[0][1] == {b"content-type": b"application/json"}


async def test_an_image_can_be_edited_with_json_too(autojump_clock: Clock) -> None:
    body = json.dumps({"model": "m", "prompt": "a hat", "images": []}).encode()
    async with serving() as stack:
        assert (await send(stack, body, EDITS, "application/json")).status == 200
        assert stack.engines.requests[0][2] == body


async def test_the_engine_s_own_name_stands_in_the_form(autojump_clock: Clock) -> None:
    async with serving() as stack:
        stack.engines.client_type.served_name = "large-v3"
        assert (await send(stack, SMALL)).status == 200
        assert stack.engines.requests[0][2] == SMALL.replace(b"\nm\r", b"\nlarge-v3\r")


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (SMALL.replace(b"\nm\r", b"\nnope\r"), TYPE, 404, "model_not_found"),
        (form(part("file", b"x")), TYPE, 400, "missing_model"),
        (form(MODEL, MODEL), TYPE, 400, "duplicate_model"),
        (SMALL, "multipart/form-data", 400, "invalid_form"),
        (SMALL, f"{TYPE}; boundary=other", 400, "invalid_form"),
        (SMALL, "multipart/form-data; xboundary=other; boundary=bound", 400, "invalid_form"),
        (b"{}", "application/json", 400, "invalid_form"),
        (b"", TYPE, 400, "invalid_form"),
        (SMALL[:-4], TYPE, 400, "invalid_form"),
    ],
)
async def test_what_is_wrong_with_a_form_is_said(
    autojump_clock: Clock, body: bytes, kind: str, status: int, code: str
) -> None:
    async with serving() as stack:
        response = await send(stack, body, kind=kind)
        assert (response.status, error_of(response)["code"]) == (status, code)
        assert not stack.engines.requests
        assert not stack.engines.processes


async def test_a_model_whose_engine_takes_no_forms_says_so(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        response = await send(stack, SMALL)
        assert (response.status, error_of(response)["code"]) == (400, "endpoint_not_supported")


async def test_a_form_to_another_endpoint_is_no_upload(autojump_clock: Clock) -> None:
    async with serving() as stack:
        response = await send(stack, SMALL, "/v1/chat/completions")
        assert (response.status, error_of(response)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("body", [LARGE, pieces_of(LARGE)])
async def test_a_form_that_is_too_large_is_refused(
    autojump_clock: Clock, body: bytes | AsyncIterator[bytes]
) -> None:
    async with serving(max_body_bytes=2_000_000) as stack:
        response = await send(stack, body)
        assert (response.status, error_of(response)["code"]) == (413, "body_too_large")


async def test_a_small_form_whose_engine_is_lost_gets_another_try(autojump_clock: Clock) -> None:
    async with serving() as stack:
        stack.engines.refusals = [EngineDisconnected("gone")]
        assert (await send(stack, SMALL)).status == 200
        assert stack.engines.requests[0][2] == SMALL


async def test_a_form_that_went_through_gets_no_other_try(autojump_clock: Clock) -> None:
    async with serving() as stack:
        assert (await send(stack, SMALL)).status == 200  # an engine runs: nothing is waited for
        stack.engines.scripts = [dies_of(EngineDisconnected("gone"))]
        response = await send(stack, LARGE)
        assert (response.status, error_of(response)["code"]) == (502, "engine_failed")
        assert len(stack.engines.requests) == 2


def dies_of(error: Exception) -> Iterator[bytes]:
    yield from ()
    raise error


async def test_while_it_waits_for_an_engine_the_form_is_read(autojump_clock: Clock) -> None:
    async with serving() as stack:
        stack.engines.load_s = 60
        sent_at = []

        async def body() -> AsyncIterator[bytes]:
            async for piece in pieces_of(LARGE):
                yield piece
            sent_at.append(trio.current_time())

        assert (await send(stack, body())).status == 200
        assert stack.engines.requests[0][2] == LARGE
        assert sent_at[0] < 60


async def test_a_client_that_leaves_while_it_waits_gives_up_its_place(
    autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    async with serving() as stack:
        stack.engines.load_s = 1000
        with trio.move_on_after(50):
            await send(stack, pieces_of(LARGE[:3_000_000], trio.Event()))
        await trio.testing.wait_all_tasks_blocked()
        assert json.loads((await stack.get("/gateway/queue")).content)["tickets"] == []


async def test_a_client_that_leaves_in_the_body_frees_its_engine(autojump_clock: Clock) -> None:
    async with serving() as stack:
        assert (await send(stack, SMALL)).status == 200
        with trio.move_on_after(50):
            await send(stack, pieces_of(LARGE[:3_000_000], trio.Event()))
        await trio.testing.wait_all_tasks_blocked()
        engine = json.loads((await stack.get("/gateway/engines")).content)["engines"][0]
        assert engine["leases"] == 0


async def test_a_form_that_turns_out_broken_ends_at_its_engine(autojump_clock: Clock) -> None:
    async with serving() as stack:
        assert (await send(stack, SMALL)).status == 200
        response = await send(stack, form(MODEL, part("file", BLOB), MODEL))
        assert (response.status, error_of(response)["code"]) == (400, "duplicate_model")


async def test_the_gateway_s_end_refuses_a_form_that_is_still_being_sent(
    autojump_clock: Clock,
) -> None:
    async with serving() as stack:
        assert (await send(stack, SMALL)).status == 200
        client = stack.network.connect()
        head = f"POST {AUDIO} HTTP/1.1\r\nHost: gateway\r\nContent-Type: {TYPE}\r\n"
        await client.send_all(f"{head}Content-Length: {len(LARGE)}\r\n\r\n".encode())
        await client.send_all(LARGE[:3_000_000])
        await trio.testing.wait_all_tasks_blocked()
        stack.gateway.begin_shutdown()
        answer = b""
        while b"shutting_down" not in answer:
            answer += await client.receive_some()
        assert answer.startswith(b"HTTP/1.1 503")


async def test_the_dump_of_a_form_leaves_the_file_out(
    autojump_clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = []

    begin_as_it_is = DumpWriter.begin

    def begin(self: DumpWriter, *given: Any) -> DumpRecord:
        records.append(begin_as_it_is(self, *given))
        return records[-1]

    monkeypatch.setattr(DumpWriter, "begin", begin)
    async with serving(dumps_dir=tmp_path) as stack:
        await send(stack, SMALL)
    assert records[0].request == b"(a multipart form for m)"
