"""Models that are unloaded, pinned and kept, as tables."""

from __future__ import annotations

import math

from tests.support.scheduler_tables import (
    A,
    B,
    C,
    LeaseBack,
    arrive,
    loaded,
    play,
    ready,
    scheduler,
)
from trio_gateway.engine.scheduling.events import EngineExited, Keep, TimePassed, Unload


def test_an_unloaded_model_stops_once_its_requests_are_done() -> None:
    play(
        scheduler(A),
        [
            *loaded("a"),
            (1, Unload("a"), ["drain 1"]),
            (2, LeaseBack(1), ["stop 1"]),
        ],
    )


def test_an_idle_engine_is_stopped_at_once_and_others_are_left_alone() -> None:
    play(
        scheduler(A, B, primary=2),
        [
            *loaded("ab"),
            (1, LeaseBack(1), []),
            (2, Unload("a"), ["stop 1"]),
        ],
    )


def test_what_is_unloaded_is_not_called_back_but_started_anew() -> None:
    play(
        scheduler(A),
        [
            *loaded("a"),
            (1, Unload("a"), ["drain 1"]),
            (2, arrive(2, "a"), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start a:only as 2"]),
            (5, ready(2), ["grant 2 engine 2"]),
        ],
    )


def test_one_that_makes_way_already_and_is_unloaded_is_not_called_back_either() -> None:
    play(
        scheduler(A, B),
        [
            *loaded("a"),
            (1, arrive(2, "b"), ["drain 1"]),
            (2, Unload("a"), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start b:only as 2"]),
        ],
    )


def test_a_kept_engine_stays_as_long_as_was_asked() -> None:
    subject = scheduler(A)
    play(subject, [*loaded("a"), (1, LeaseBack(1), [])])
    assert subject.next_deadline() == 301
    play(subject, [(1, Keep("a", 10.0), [])])
    assert subject.next_deadline() == 11
    play(subject, [(1, Keep("a", math.inf, True), [])])
    assert subject.next_deadline() is None
    play(subject, [(1000, Keep("a"), []), (1000, TimePassed(), ["stop 1"])])


def test_a_pinned_model_makes_way_last() -> None:
    subject = scheduler(A, B, C, primary=2)
    play(subject, [*loaded("ab"), (1, LeaseBack(1), []), (9, LeaseBack(2), [])])
    play(subject, [(9, Keep("a", None, True), []), (9, arrive(3, "c"), ["stop 2"])])
    other = scheduler(A, B, C, primary=2)
    play(other, [*loaded("ab"), (1, LeaseBack(1), []), (9, LeaseBack(2), [])])
    play(other, [(9, arrive(3, "c"), ["stop 1"])])  # the same without


def test_an_unload_of_what_does_not_run_changes_nothing() -> None:
    play(scheduler(A), [(0, Unload("a"), []), (1, TimePassed(), [])])


def test_with_force_those_that_wait_for_it_are_refused_too() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, Unload("a", force=True), ["reject 1 UNLOADED", "stop 1"]),
        ],
    )


def test_without_force_they_get_another_engine() -> None:
    play(
        scheduler(A),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, Unload("a"), ["stop 1"]),
            (2, EngineExited(1), ["start a:only as 2"]),
        ],
    )


def test_what_an_unloaded_engine_says_of_its_context_does_not_end_the_one_that_loads_for_it() -> (
    None
):
    play(
        scheduler(A, primary=2),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, Unload("a"), ["stop 1", "start a:only as 2"]),
            (2, ready(1, context=12_345), []),  # it was ready before it heard of its stop
            (3, EngineExited(1), []),
            (4, ready(2, context=12_345), ["grant 1 engine 2"]),
        ],
    )
