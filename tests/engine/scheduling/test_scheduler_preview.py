"""What would become of a ticket if it came now."""

from __future__ import annotations

import pytest

from tests.support.picture import picture
from tests.support.scheduler_tables import (
    GROWING,
    LARGE,
    SMALL,
    A,
    B,
    C,
    LeaseBack,
    Step,
    arrive,
    batch,
    loaded,
    play,
    ready,
    scheduler,
)
from trio_gateway.engine.scheduling.demands import PauseLeft
from trio_gateway.engine.scheduling.events import EngineExited, EngineFailed, How, VariantKey
from trio_gateway.engine.scheduling.lifecycle import EngineState
from trio_gateway.engine.scheduling.preview import Preview
from trio_gateway.engine.scheduling.scheduler import Scheduler

A_ONLY, B_ONLY = A.key, B.key
A_SMALL, A_LARGE = (facts.key for facts in GROWING)

# Before anything was measured a load takes 10 s and a lease 10 s.


def after(*steps: Step, subject: Scheduler | None = None) -> Scheduler:
    subject = subject or scheduler(A, B, C)
    play(subject, steps)
    return subject


@pytest.mark.parametrize(
    ("need", "start_need", "variant"),
    [(900, 0, A_SMALL), (900, 1100, A_LARGE), (LARGE, 0, A_LARGE), (900, 5 * LARGE, A_LARGE)],
)
def test_in_an_empty_pool_the_variant_is_started_that_has_the_room_to_grow(
    need: int, start_need: int, variant: VariantKey
) -> None:
    assert scheduler(*GROWING).preview("a", need, start_need, 0) == Preview(
        variant=variant, how=How.STARTED, expected_wait_s=10, expected_load_s=10
    )


def test_no_variant_serves_what_none_holds() -> None:
    assert scheduler(A).preview("a", SMALL + 1, 0, 0).variant is None


def test_a_ready_engine_with_a_free_slot_serves_at_once_whatever_room_is_wished_for() -> None:
    subject = after(
        (0, arrive(1, "a"), ["start a:small as 1"]),
        (0, ready(1, slots=2), ["grant 1 engine 1"]),
        subject=scheduler(*GROWING),
    )
    assert subject.preview("a", 900, LARGE, 1) == Preview(
        variant=A_SMALL, how=How.REUSED, engine_state=EngineState.READY
    )


def test_at_a_full_engine_it_waits_for_a_lease() -> None:
    assert after(*loaded("a")).preview("a", 100, 0, 1) == Preview(
        variant=A_ONLY, how=How.REUSED, engine_state=EngineState.READY, expected_wait_s=9
    )


@pytest.mark.parametrize(("need", "wait_s"), [(600, 0), (601, 9)], ids=["fits", "one too many"])
def test_at_an_engine_whose_slots_share_tokens_it_waits_if_too_few_are_left(
    need: int, wait_s: float
) -> None:
    subject = after(
        (0, arrive(1, "a", 400), ["start a:only as 1"]),
        (0, ready(1, slots=4, shared_tokens=SMALL), ["grant 1 engine 1"]),
    )
    assert subject.preview("a", need, 0, 1).expected_wait_s == wait_s


def test_it_waits_for_the_rest_of_a_load_that_is_under_way() -> None:
    subject = after((0, arrive(1, "a"), ["start a:only as 1"]))
    assert subject.preview("a", 100, 0, 4) == Preview(
        variant=A_ONLY,
        how=How.REUSED,
        engine_state=EngineState.STARTING,
        expected_wait_s=6 + 10,
        expected_load_s=6,
    )


def test_an_idle_engine_of_another_model_makes_way() -> None:
    assert after(*loaded("a"), (1, LeaseBack(1), [])).preview("b", 100, 0, 2) == Preview(
        variant=B_ONLY,
        how=How.SWAPPED,
        evicts=(A_ONLY,),
        expected_wait_s=10,
        expected_load_s=10,
    )


def test_a_busy_engine_of_another_model_makes_way_after_its_lease() -> None:
    assert after(*loaded("a")).preview("b", 100, 0, 2) == Preview(
        variant=B_ONLY,
        how=How.SWAPPED,
        evicts=(A_ONLY,),
        expected_wait_s=8 + 10,
        expected_load_s=10,
    )


def test_what_makes_way_for_its_model_already_is_what_is_evicted() -> None:
    subject = after(*loaded("a"), (1, arrive(2, "b"), ["drain 1"]), (2, LeaseBack(1), ["stop 1"]))
    found = subject.preview("b", 100, 0, 3)
    assert (found.how, found.evicts) == (How.SWAPPED, (A_ONLY,))


def test_behind_others_that_have_all_the_room_it_is_not_decided_yet_what_makes_way() -> None:
    subject = after(*loaded("a"), (1, arrive(2, "b"), ["drain 1"]))
    found = subject.preview("c", 100, 0, 2)
    assert (found.variant, found.how, found.evicts) == (C.key, How.SWAPPED, ())


def test_it_is_started_with_those_that_wait_for_its_model_already() -> None:
    subject = after(
        *loaded("b"),
        (1, arrive(2, "a", LARGE), ["drain 1"]),
        subject=scheduler(*GROWING, B),
    )
    assert subject.preview("a", 100, 0, 2).variant == A_LARGE


def test_an_engine_that_drains_for_a_batch_request_is_called_back() -> None:
    subject = after(
        (0, batch(1, "a"), ["start a:only as 1"]),
        (0, ready(1, slots=2), ["grant 1 engine 1"]),
        (1, batch(2, "b"), ["drain 1"]),
    )
    assert subject.preview("a", 100, 0, 2) == Preview(
        variant=A_ONLY, how=How.REUSED, engine_state=EngineState.DRAINING
    )
    play(subject, [(2, arrive(3, "a"), ["resume 1", "grant 3 engine 1"])])


def test_in_back_off_it_says_for_how_long_and_why() -> None:
    subject = after(
        (0, arrive(1, "a"), ["start a:only as 1"]),
        (1, EngineFailed(1, "no such file"), ["reject 1 START_FAILED"]),
    )
    found = subject.preview("a", 100, 0, 1.25)
    assert (found.variant, found.pause) == (
        A_ONLY,
        PauseLeft(A_ONLY, 0.75, 1, "no such file", True),
    )
    assert (found.how, found.expected_wait_s, found.expected_load_s) == (How.STARTED, 10.75, 10)
    assert subject.preview("a", 100, 0, 2).pause is None


def test_where_only_the_room_to_grow_is_in_back_off_the_smaller_variant_is_started() -> None:
    subject = after(
        (0, arrive(1, "a", LARGE), ["start a:large as 1"]),
        (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]),
        subject=scheduler(*GROWING),
    )
    found = subject.preview("a", 100, LARGE, 0.5)
    assert (found.variant, found.pause) == (A_SMALL, None)


def test_a_batch_request_waits_behind_all_others_and_a_client_with_nothing_waiting_does_not() -> (
    None
):
    subject = after(*loaded("a"))
    play(subject, [(1, arrive(n, "a", client="hoarder"), []) for n in range(2, 12)])
    waits = [
        subject.preview("a", 100, 0, 1, client="person").expected_wait_s,
        subject.preview("a", 100, 0, 1, client="hoarder").expected_wait_s,
    ]
    assert waits == [19, 109]


@pytest.mark.parametrize("model", ["a", "b", "c"])
def test_it_changes_nothing(model: str) -> None:
    subject = after(
        *loaded("a"),
        (1, arrive(2, "a", client="x"), []),
        (1, batch(3, "b"), []),
        (2, LeaseBack(1), ["grant 2 engine 1"]),
        (3, LeaseBack(1), ["stop 1"]),
    )
    before = picture(subject)
    subject.preview(model, 100, SMALL, 5, client="x")
    assert picture(subject) == before
    play(subject, [(6, EngineExited(1), ["start b:only as 2"])])
