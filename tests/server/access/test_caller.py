"""What the scheduler is told of a request's sender."""

from __future__ import annotations

from typing import Any

import pytest

from trio_gateway.config.priority import Priority
from trio_gateway.server.access.caller import caller_of
from trio_gateway.server.access.permissions import EVERYTHING, PERMISSIONS_KEY, Permissions
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import FIRST_KEY, first_headers


def scope(
    *headers: tuple[bytes, bytes], permissions: Permissions = EVERYTHING, **fields: Any
) -> dict[str, Any]:
    client = ("10.0.0.7", 4711)
    first = first_headers(headers)
    return {FIRST_KEY: first, "client": client, PERMISSIONS_KEY: permissions, **fields}


def test_a_key_of_the_gateway_is_called_by_its_name() -> None:
    given = scope((b"authorization", b"Bearer x"), permissions=Permissions("laptop"))
    assert caller_of(given).client == "laptop"


def test_without_keys_what_a_client_sends_as_one_tells_it_from_others_and_is_not_shown() -> None:
    mine = caller_of(scope((b"authorization", b"Bearer mine"))).client
    assert mine == caller_of(scope((b"accept", b"*/*"), (b"authorization", b"Bearer mine"))).client
    assert mine != caller_of(scope((b"x-api-key", b"other"))).client
    assert mine.startswith("key ")
    assert "mine" not in mine


@pytest.mark.parametrize(
    ("client", "said"), [(("10.0.0.7", 1), "10.0.0.7"), (None, "<local>")]
)  # None: over a Unix socket
def test_without_anything_else_it_is_the_address(client: Any, said: str) -> None:
    assert caller_of(scope((b"x-api-key", b""), client=client)).client == said


@pytest.mark.parametrize(
    ("own", "asked", "priority"),
    [
        (Priority.INTERACTIVE, b"batch", Priority.BATCH),
        (Priority.INTERACTIVE, b" Interactive ", Priority.INTERACTIVE),
        (Priority.BATCH, b"interactive", Priority.BATCH),
    ],
)
def test_a_header_may_lower_the_priority(own: Priority, asked: bytes, priority: Priority) -> None:
    given = scope((b"x-gateway-priority", asked), permissions=Permissions("a", own))
    assert caller_of(given).priority is priority


def test_an_unknown_priority_is_a_400_that_names_those_there_are() -> None:
    with pytest.raises(ApiError, match="interactive or batch") as raised:
        caller_of(scope((b"x-gateway-priority", b"urgent")))
    assert (raised.value.status, raised.value.code) == (400, "invalid_priority")
