"""A large request's body, in pieces: what its members are."""

from __future__ import annotations

import pytest

from trio_gateway.server.api.large_body import LargeBody

PIECES = [b'{"a":"lo', b'ng","b":[1],"c":1}']


@pytest.fixture
def body() -> LargeBody:
    return LargeBody(PIECES, {"a": (5, 11), "b": (16, 19), "c": (24, 25)})


def test_the_type_of_a_member_shows_in_its_first_byte(body: LargeBody) -> None:
    assert [body.first_byte(name) for name in ("a", "b", "c", "d")] == [b'"', b"[", b"1", b""]
    assert body.replaced("a", b"true").first_byte("a") == b"t"


def test_a_short_member_is_told_whole(body: LargeBody) -> None:
    assert [body.short_member(name) for name in ("a", "d")] == [b'"long"', None]
