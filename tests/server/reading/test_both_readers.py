"""A request is counted alike, whether the gateway reads it or a process of its own does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.agent_requests import AGENT_REQUESTS
from tests.support.request_kinds import KINDS
from trio_gateway.models.need.bounds import IMAGE_TOKENS, Overhead
from trio_gateway.models.need.measured_form import MeasuredForm
from trio_gateway.server.api.endpoints import ENDPOINTS
from trio_gateway.server.api.request_body import parse_request
from trio_gateway.server.reading.messages import Body, Opened, Read, Terms
from trio_gateway.server.reading.program import Reader

ROWS = {row.name: row for row in ENDPOINTS}
CASES = [
    *((r.name, r.endpoint, r.body) for r in AGENT_REQUESTS if r.endpoint in KINDS),
    *((name, endpoint, body) for endpoint, kinds in KINDS.items() for name, body in kinds.items()),
]


@pytest.mark.parametrize("endpoint", KINDS)
def test_a_request_is_counted_alike_by_both_readers(endpoint: str) -> None:
    for name, row, body in CASES:
        if row == endpoint:
            data = json.dumps({"model": "m", **body}).encode()
            form = parse_request(data, ROWS[endpoint]).counted(ROWS[endpoint])
            assert answers(read_elsewhere(endpoint, data)) == answers(form), name


def read_elsewhere(endpoint: str, data: bytes) -> MeasuredForm:
    reader = Reader()
    opened, _ = reader.answer(Body(endpoint), data)
    assert isinstance(opened, Opened)
    read, pieces = reader.answer(Terms(None, False, IMAGE_TOKENS), b"")
    assert isinstance(read, Read)
    assert read.measures is not None
    return MeasuredForm(read.measures, pieces[0])


def answers(form: Any) -> list[Any]:
    """All that is ever asked of it, but its body."""
    counted = form.countable()
    return [
        form.kind, form.answer, form.size(), form.lower_bound(),
        form.upper_bound(Overhead()), form.upper_bound(Overhead(9, 9, 0, 0)),
        form.is_plain(form.size()), None if counted is None else (counted.body, counted.media),
    ]  # fmt: skip
