"""Requests that different readers would read differently."""

from __future__ import annotations

from typing import Any

import pytest

from trio_gateway.server.access.well_formed import fault_of

LENGTH, CHUNKED = (b"content-length", b"2"), (b"transfer-encoding", b"chunked")


def scope(path: str = "/x", *headers: tuple[bytes, bytes], version: str = "1.1") -> dict[str, Any]:
    raw, _, query = path.encode().partition(b"?")
    return {
        "type": "http",
        "path": path.partition("?")[0],
        "raw_path": raw,
        "query_string": query,
        "headers": [*headers],
        "http_version": version,
    }


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (scope("/x", LENGTH, CHUNKED), 400, "invalid_http"),
        (scope("/x", (b"Transfer-Encoding", b"chunked"), LENGTH), 400, "invalid_http"),
        (scope("/x", (b"content-encoding", b"GZIP")), 415, "compressed_body"),
        (scope("x"), 400, "invalid_path"),
        (scope(""), 400, "invalid_path"),
        (scope("http://other/x"), 400, "invalid_path"),
        (scope("//x"), 404, "unknown_path"),
        (scope("/x y"), 400, "invalid_path"),
        (scope("/x?y\tz"), 400, "invalid_path"),
        (scope("/x?\xe9"), 400, "invalid_path"),
        (scope(version="0.9"), 505, "invalid_http"),
        (scope(version="2.0"), 505, "invalid_http"),
    ],
)
def test_they_are_refused(given: dict[str, Any], status: int, code: str) -> None:
    error = fault_of(given)
    assert error is not None
    assert (error.status, error.code) == (status, code)


@pytest.mark.parametrize(
    "given",
    [
        scope("/x", LENGTH),
        scope("/x", CHUNKED),
        scope("/x", (b"content-encoding", b"identity")),
        scope("*"),
        scope("/x//y"),
        scope("/x%20y?z=%C3%A9"),
        scope(version="1.0"),
        scope(version="2"),
    ],
)
def test_the_others_are_not(given: dict[str, Any]) -> None:
    assert fault_of(given) is None
