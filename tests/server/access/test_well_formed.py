"""Requests that are not taken, whoever sends them."""

from __future__ import annotations

from typing import Any

import pytest

from trio_gateway.server.access.well_formed import fault_of
from trio_gateway.server.http.types import FIRST_KEY, first_headers

CODINGS = [(b"content-encoding", b"gzip"), (b"content-encoding", b"identity")]


def scope(path: str = "/x", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    raw, _, query = path.encode().partition(b"?")
    return {
        "type": "http",
        "path": path.partition("?")[0],
        "raw_path": raw,
        "query_string": query,
        "headers": [*headers],
        FIRST_KEY: first_headers(headers),
    }


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (scope("/x", (b"content-encoding", b"GZIP")), 415, "compressed_body"),
        (scope("/x", *CODINGS), 415, "compressed_body"),
        (scope("/x", *CODINGS[::-1]), 415, "compressed_body"),
        (scope("x"), 400, "invalid_path"),
        (scope(""), 400, "invalid_path"),
        (scope("http://other/x"), 400, "invalid_path"),
        (scope("//x"), 404, "unknown_path"),
    ],
)
def test_they_are_refused(given: dict[str, Any], status: int, code: str) -> None:
    error = fault_of(given)
    assert error is not None
    assert (error.status, error.code) == (status, code)


@pytest.mark.parametrize(
    "given",
    [
        scope("/x", (b"content-encoding", b"identity")),
        scope("*"),
        scope("/x//y"),
        scope("/x%20y?z=%C3%A9"),
    ],
)
def test_the_others_are_not(given: dict[str, Any]) -> None:
    assert fault_of(given) is None
