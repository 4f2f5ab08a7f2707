"""The ring: what is kept of the events, and who may go on from where."""

from __future__ import annotations

from trio_gateway.server.feed.ring import Entry, Ring


def filled(count: int, **limits: int) -> Ring:
    ring = Ring(**limits)
    for number in range(1, count + 1):
        ring.add(Entry(b"event %d" % number))
    return ring


def after(ring: Ring, number: int) -> list[tuple[int, bytes]]:
    return [(number, entry.text) for number, entry in ring.after(number)]


def test_events_are_counted_from_one_and_read_from_any_place() -> None:
    ring = filled(3)
    assert ring.last == 3
    assert after(ring, 1) == [(2, b"event 2"), (3, b"event 3")]
    assert after(ring, 3) == []
    assert [number for number in range(-1, 6) if ring.has_after(number)] == [0, 1, 2, 3]


def test_no_more_events_than_may_be() -> None:
    ring = filled(10, events_max=4)
    assert [number for number in range(12) if ring.has_after(number)] == [6, 7, 8, 9, 10]
    assert after(ring, 8) == [(9, b"event 9"), (10, b"event 10")]
    assert ring.bytes == len(b"event 7event 8event 9event 10")


def test_no_more_bytes_than_may_be() -> None:
    ring = filled(10, bytes_max=16)
    assert after(ring, 8) == [(9, b"event 9"), (10, b"event 10")]
    assert not ring.has_after(7)
    ring.add(Entry(b"x" * 10, plain=b"y" * 10))
    assert (after(ring, 11), ring.has_after(10)) == ([], False)


def test_after_it_was_cleared_everybody_begins_anew() -> None:
    ring = filled(3)
    ring.clear()
    assert [number for number in range(6) if ring.has_after(number)] == [4]
    ring.add(Entry(b"event 5"))
    assert after(ring, 4) == [(5, b"event 5")]
