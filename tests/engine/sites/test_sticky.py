"""Which site has answered a conversation, and what another gateway says of itself."""

from __future__ import annotations

import msgspec
import pytest

from trio_gateway.engine.sites.peer_load import PeerLoad, peer_load
from trio_gateway.engine.sites.sticky import Sticky


def test_a_conversation_has_the_site_of_its_last_turn() -> None:
    sticky = Sticky()
    sticky.note(b"a", 1)
    sticky.note(None, 2)
    assert (sticky.get(b"a"), sticky.get(b"b"), sticky.get(None)) == (1, None, None)
    sticky.note(b"a", 0)
    assert (sticky.get(b"a"), len(sticky)) == (0, 1)


def test_those_that_were_not_heard_of_for_the_longest_are_forgotten() -> None:
    sticky = Sticky(most=2)
    for key in (b"a", b"b", b"a", b"c"):
        sticky.note(key, 1)
    assert [sticky.get(key) for key in (b"a", b"b", b"c")] == [1, None, 1]
    assert len(sticky) == 2


@pytest.mark.parametrize(
    ("answer", "ours", "found"),
    [
        ({"waiting": 2, "running": 3, "tickets": [{}, {}], "held": {}}, 1, PeerLoad(2, 3, 4)),
        ({"waiting": 1, "running": 1}, 5, PeerLoad(1, 1, 0)),  # ours have ended since
        ({"waiting": -1, "running": -7}, 0, PeerLoad(0, 0, 0)),
        ({"tickets": [{}]}, 0, PeerLoad(1, 0, 1)),
        ({"running": 4}, 0, None),
        ({"tickets": 7}, 0, None),
        ({"error": {"message": "no"}}, 0, None),
        ([], 0, None),
    ],
)
def test_another_gateways_queue(answer: object, ours: int, found: PeerLoad | None) -> None:
    assert peer_load(msgspec.json.encode(answer), ours) == found


@pytest.mark.parametrize("answer", [b"", b"<html>", b"\xff", b'{"waiting": "x"}'])
def test_what_is_no_queue_says_nothing(answer: bytes) -> None:
    assert peer_load(answer, 0) is None
