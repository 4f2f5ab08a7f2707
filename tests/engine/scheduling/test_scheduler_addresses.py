"""Variants with a fixed endpoint: one engine at a time has it."""

from __future__ import annotations

from tests.support.scheduler_tables import (
    LARGE,
    A,
    B,
    C,
    LeaseBack,
    arrive,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
)

SHARED = "http://127.0.0.1:8081"


def test_two_variants_with_one_address_never_run_together_even_in_different_pools() -> None:
    play(
        scheduler(variant("a", endpoint=SHARED), variant("e", endpoint=SHARED, pool="secondary")),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "e"), ["drain 1"]),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start e:only as 2"]),
        ],
    )


def test_an_address_whose_engine_an_earlier_request_waits_for_costs_no_other_engine() -> None:
    play(
        scheduler(
            variant("a:small", endpoint=SHARED),
            variant("a:large", LARGE, endpoint=SHARED),
            B,
            primary=2,
        ),
        [
            (0, arrive(1, "b"), ["start b:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, LeaseBack(1), []),
            (3, arrive(2, "a", 10), ["start a:small as 2"]),
            (4, arrive(3, "a", LARGE), []),
            (5, ready(2), ["grant 2 engine 2", "drain 2"]),
            (6, LeaseBack(2), ["stop 2"]),
            (7, EngineExited(2), ["start a:large as 3"]),
        ],
    )


def test_the_address_of_a_start_that_waits_for_room_is_taken_already() -> None:
    """A later start there would be stopped for the earlier one, and start again, without end."""
    play(
        scheduler(
            variant("a", endpoint=SHARED), B, variant("e", endpoint=SHARED, pool="secondary")
        ),
        [
            (0, arrive(1, "b"), ["start b:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, arrive(2, "a"), ["drain 1"]),
            (3, arrive(3, "e"), []),
            (4, LeaseBack(1), ["stop 1"]),
            (5, EngineExited(1), ["start a:only as 2"]),
            (6, ready(2), ["grant 2 engine 2", "drain 2"]),
            (7, LeaseBack(2), ["stop 2"]),
            (8, EngineExited(2), ["start e:only as 3"]),
        ],
    )


def test_a_start_that_waits_for_its_address_keeps_its_room() -> None:
    play(
        scheduler(
            A,
            variant("b", endpoint=SHARED),
            C,
            variant("e", endpoint=SHARED, pool="secondary"),
            primary=2,
        ),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, arrive(2, "e"), ["start e:only as 2"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, ready(2), ["grant 2 engine 2"]),
            (2, arrive(3, "b"), ["drain 2"]),
            (3, arrive(4, "c"), ["drain 1"]),
            (4, LeaseBack(2), ["stop 2"]),
            (5, EngineExited(2), ["start b:only as 3"]),
            (6, LeaseBack(1), ["stop 1"]),
            (7, EngineExited(1), ["start c:only as 4"]),
        ],
    )
