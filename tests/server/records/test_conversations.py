"""How requests of one conversation are told."""

from __future__ import annotations

import pytest

from trio_gateway.config.schema import SESSION_HEADERS
from trio_gateway.models.cache_breaks import Thread
from trio_gateway.server.records.conversations import SessionHeaders, named_id, thread_id

UUID = "0199f3a2-7c11-7ad0-b3f5-2d3c7f0e9a41"


def session(*headers: tuple[str, str], names: tuple[str, ...] = SESSION_HEADERS) -> str | None:
    """ASGI servers give names in small letters."""
    return SessionHeaders(names).session({n.encode(): v.encode() for n, v in headers})


@pytest.mark.parametrize(
    "name",
    [
        "x-session-id",
        "x-litellm-session-id",
        "x-claude-code-session-id",  # Claude Code
        "session-id",  # Codex
        "session_id",  # Codex before that
        "x-opencode-session",
        "x-session-affinity",  # opencode, of providers that are not its own
        "x-openwebui-chat-id",
    ],
)
def test_a_client_s_own_header_tells_its_conversation(name: str) -> None:
    assert session(("accept", "*/*"), (name, UUID), ("user-agent", "x")) == UUID


def test_of_several_headers_the_one_that_comes_first_in_the_list_counts() -> None:
    found = session(("b", "from-b"), ("a", "from-a"), ("c", "from-c"), names=("A", "B"))
    assert found == "from-a"


def test_without_such_a_header_there_is_no_name() -> None:
    assert session(("accept", "*/*")) is None
    assert session(("x-session-id", "")) is None
    assert session(("x-session-id", UUID), names=()) is None


@pytest.mark.parametrize("value", ["Ann's letter to Bob", "x" * 65, "<script>", "é", "a\tb"])
def test_what_is_no_id_is_told_by_a_digest(value: str) -> None:
    found = session(("x-session-id", value))
    assert found is not None
    assert len(found) == 12
    assert found == session(("x-session-id", value)) != session(("x-session-id", value + "!"))


def test_what_clients_call_a_conversation_is_apart_for_each_key() -> None:
    keys = ("ann", "bob", "ann: x", "ann:", None)
    found = [named_id(key, name) for key in keys for name in ("x", "y", "x:x", ":x")]
    assert len({*found}) == len(found)
    assert named_id("ann", "x") == "ann: x"
    assert named_id(None, "x") == "x"


def test_a_beginning_is_told_by_a_digest_of_its_own_for_each_owner() -> None:
    found = [
        thread_id(owner, Thread(beginning, number))
        for owner in ("ann", "bob")
        for beginning in (b"12345678", b"abcdefgh")
        for number in (0, 1)
    ]
    assert len({*found}) == len(found)
    assert found[0] == thread_id("ann", Thread(b"12345678", 0))
