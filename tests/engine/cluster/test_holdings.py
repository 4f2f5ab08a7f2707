"""Which applications have an engine, and which were left behind."""

from __future__ import annotations

from trio_gateway.engine.cluster.holdings import Holdings


def test_one_is_held_then_left_then_held_again() -> None:
    told: list[str] = []
    subject = Holdings[str](lambda: told.append("left"))
    subject.take("a")
    assert subject.holds("a")
    subject.give_back("a", "there")
    assert told == ["left"]
    assert not subject.holds("a")
    assert subject.left["a"].place == "there"
    subject.take("a")
    assert subject.left == {}


def test_one_that_was_taken_out_in_order_is_not_left() -> None:
    subject = Holdings[str](lambda: None)
    subject.take("a")
    subject.give_back("a", None)
    assert subject.left == {}


def test_one_that_is_left_again_meanwhile_is_not_forgotten() -> None:
    subject = Holdings[str](lambda: None)
    subject.give_back("a", "there")
    subject.give_back("b", "there")
    seen = subject.left
    subject.take("a")
    subject.give_back("a", "there")
    subject.forget(seen)
    assert [*subject.left] == ["a"]
