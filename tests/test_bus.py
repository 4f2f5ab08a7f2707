"""The bus: who listens is told at once, and only of what it listens for."""

from __future__ import annotations

from trio_gateway.bus import Bus


class Rang:
    pass


class RangTwice(Rang):
    pass


def test_a_listener_hears_its_own_kind_only() -> None:
    bus, heard = Bus(), list[Rang]()
    bus.listen(Rang, heard.append)
    rang = Rang()
    for happening in (rang, RangTwice(), "something else"):
        bus.publish(happening)
    assert heard == [rang]


def test_all_listeners_hear_it_in_the_order_in_which_they_came() -> None:
    bus, heard = Bus(), list[str]()
    bus.listen(Rang, lambda _: heard.append("first"))
    bus.listen(Rang, lambda _: heard.append("second"))
    bus.publish(Rang())
    assert heard == ["first", "second"]


def test_who_stops_listening_hears_nothing_more() -> None:
    bus, heard = Bus(), list[Rang]()
    with bus.listening(Rang, heard.append):
        assert bus.has_listeners(Rang)
        bus.publish(Rang())
    bus.publish(Rang())
    assert len(heard) == 1
    assert not bus.has_listeners(Rang)


def test_a_listener_may_leave_while_it_is_told() -> None:
    bus, heard = Bus(), list[str]()

    def once(_: Rang) -> None:
        heard.append("once")
        bus.unlisten(Rang, once)

    bus.listen(Rang, once)
    bus.listen(Rang, lambda _: heard.append("always"))
    bus.publish(Rang())
    bus.publish(Rang())
    assert heard == ["once", "always", "always"]
