"""How long a variant that keeps failing is left alone."""

from __future__ import annotations

import pytest

from trio_gateway.engine.scheduling.back_off import BackOff, Pause


def pause_s(subject: BackOff[str], now: float) -> float:
    found = subject.pause("a", now)
    return found.until - now if found is not None else 0.0


def test_a_variant_that_never_failed_may_start() -> None:
    assert BackOff[str]().pause("a", 0) is None


def test_each_failed_start_in_a_row_doubles_the_pause_up_to_30_seconds() -> None:
    subject, pauses = BackOff[str](), []
    for now in range(0, 700, 100):
        subject.start_failed("a", now, "boom")
        pauses.append(pause_s(subject, now))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_the_first_crash_costs_no_pause_and_the_next_ones_1_2_4_seconds() -> None:
    subject, pauses = BackOff[str](), []
    for now in range(0, 800, 100):
        subject.engine_ended("a", now, "killed", served_s=59.9)
        pauses.append(pause_s(subject, now))
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_pause_knows_its_reason_and_how_often_it_came_to_that() -> None:
    subject = BackOff[str]()
    subject.start_failed("a", 0, "no such file")
    subject.start_failed("a", 10, "out of memory")
    assert subject.pause("a", 11) == Pause(until=12, failures=2, reason="out of memory")


@pytest.mark.parametrize(("now", "paused"), [(10.9, True), (11, False), (12, False)])
def test_a_pause_is_over_when_its_time_has_come(now: float, paused: bool) -> None:
    subject = BackOff[str]()
    subject.start_failed("a", 10, "boom")
    assert (subject.pause("a", now) is not None) is paused


def test_a_pause_that_is_over_is_remembered_by_the_next_failure() -> None:
    subject = BackOff[str]()
    subject.start_failed("a", 0, "boom")
    subject.start_failed("a", 1000, "boom")
    assert pause_s(subject, 1000) == 2


def test_a_crash_after_a_minute_of_good_service_counts_as_the_first() -> None:
    subject = BackOff[str]()
    for now in (0, 10, 20):
        subject.start_failed("a", now, "boom")
    subject.engine_ended("a", 100, "killed", served_s=60)
    assert pause_s(subject, 100) == 0
    subject.engine_ended("a", 101, "killed", served_s=1)
    assert pause_s(subject, 101) == 1


def test_an_engine_that_was_told_to_stop_makes_up_for_all_failures() -> None:
    subject = BackOff[str]()
    for now in (0, 10, 20):
        subject.start_failed("a", now, "boom")
    subject.engine_stopped("a")
    assert subject.pause("a", 20) is None
    subject.start_failed("a", 30, "boom")
    assert pause_s(subject, 30) == 1


def test_the_stop_of_one_that_never_failed_is_no_error() -> None:
    BackOff[str]().engine_stopped("a")


def test_variants_are_left_alone_each_for_itself() -> None:
    subject = BackOff[str]()
    subject.start_failed("a", 0, "boom")
    assert subject.pause("b", 0) is None
