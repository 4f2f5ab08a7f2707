"""What a client is told whose large body is not read, with a process that ends at once."""

from __future__ import annotations

import sys

import pytest
import trio

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.reading import readers
from trio_gateway.server.reading.readers import Readers


@pytest.mark.processes
@pytest.mark.parametrize(("stops", "status"), [(False, 413), (True, 503)])
async def test_a_body_whose_reader_ends_is_too_complex_unless_the_gateway_stops(
    stops: bool, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(readers, "_COMMAND", (sys.executable, "-S", "-c", ""))
    closing = trio.Event()
    if stops:
        closing.set()
    with pytest.raises(ApiError) as refused:
        async with Readers(closing=closing).opened([b"{}"], "v1/chat/completions", "a client"):
            raise AssertionError
    assert refused.value.status == status
    assert len(caplog.records) == (0 if stops else 1)
