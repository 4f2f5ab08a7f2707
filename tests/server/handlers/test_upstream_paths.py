"""What may be asked of one engine through `/upstream`."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.support.asking import Clock, error_of
from tests.support.carrying import Files
from tests.support.fake_slots import run_inline, slot_stack
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.upstream_paths import check_path, check_slot_action


@pytest.mark.parametrize("path", ["", "/", "/a/b.c", "/a%2Fb", "/...", "/..a", "/a;b/c", "/%C3%A9"])
def test_a_path_of_an_engine_may_be_any(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path", ["/..", "/a/../b", "/%2e%2e/x", "/a%5c..%5cb", "/a\\..\\b", "/..;x/y", "/a%00", "/%0a"]
)
def test_but_none_that_leads_elsewhere(path: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_path(path)
    assert refused.value.code == "invalid_path"


def refusal(
    path: str = "/slots/0", query: str = "action=save", body: bytes = b"", *, carried: bool = False
) -> int | None:
    try:
        check_slot_action("m", "POST", path, query, body, is_carried=carried)
    except ApiError as error:
        return error.status
    return None


def test_slots_that_the_gateway_carries_over_are_nobody_elses() -> None:
    body = b'{"filename": "mine.bin"}'
    assert refusal(body=body, carried=True) == 403
    assert refusal("/%73lots/0", body=body, carried=True) == 403
    assert refusal("/prefix/slots/0/", query="", carried=True) == 403
    assert refusal("/v1/completions", body=body, carried=True) is None
    check_slot_action("m", "GET", "/slots/0", "", b"", is_carried=True)


@pytest.mark.parametrize("name", ["mine.bin", "a", "A_b-1.2 3"])
def test_without_that_a_slot_is_saved_under_a_plain_name(name: str) -> None:
    assert refusal(body=b'{"filename": "%b"}' % name.encode()) is None
    assert refusal(query="action=erase") is None
    assert refusal(query="action=erase", body=b"{}") is None


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\\\b", "..", ".a", "a.", "", "a\\u0000b", "x" * 300]
)
def test_and_under_no_other(name: str) -> None:
    assert refusal(body=b'{"filename": "%b"}' % name.encode()) == 400


@pytest.mark.parametrize("body", [b"[]", b'{"filename":1}', b'{"filename":"a","filename":"../b"}'])
def test_a_body_that_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    assert refusal(body=body) == 400
    assert refusal(query="action=save&filename=x") == 400


async def test_a_client_cannot_write_beside_what_the_gateway_saved(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    files = Files(tmp_path)
    carried, not_carried = files.model("a"), files.model("b", kv_carryover=False)
    async with slot_stack(files.config(carried, not_carried)) as stack:
        body = b'{"filename": "mine.bin", "prompt": "for the fake engine"}'
        refused = await stack.post("/upstream/a/slots/0?action=save", body)
        assert (refused.status, error_of(refused)["code"]) == (403, "slots_in_use")
        assert not stack.engines.processes
        assert (await stack.post("/upstream/b/slots/0?action=save", body)).status == 200
