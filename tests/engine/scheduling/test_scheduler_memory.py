"""Pools with a limit of memory: what runs together, and what has to go."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import (
    GB,
    A,
    B,
    LeaseBack,
    arrive,
    loaded,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    EngineMeasured,
    TimePassed,
    VariantFacts,
)


def sized(model: str, declared: int) -> VariantFacts:
    return variant(model, declared=declared * GB)


def test_engines_run_together_as_long_as_their_memory_fits_the_pool() -> None:
    play(
        scheduler(sized("a", 6), sized("b", 4), sized("c", 1), primary=3, memory_bytes=10 * GB),
        [
            *loaded("ab"),
            (1, LeaseBack(2), []),
            (2, arrive(3, "c"), ["stop 2"]),
            (3, EngineExited(2), ["start c:only as 3"]),
        ],
    )


def test_the_limit_of_engines_holds_though_there_is_memory_for_more() -> None:
    play(
        scheduler(sized("a", 1), sized("b", 1), primary=1, memory_bytes=10 * GB),
        [*loaded("a"), (1, arrive(2, "b"), ["drain 1"])],
    )


def test_memory_is_free_only_when_the_engine_that_held_it_has_exited() -> None:
    play(
        scheduler(sized("a", 8), sized("b", 8), primary=2, memory_bytes=10 * GB),
        [
            *loaded("a"),
            (1, LeaseBack(1), []),
            (2, arrive(2, "b"), ["stop 1"]),
            (3, TimePassed(), []),
            (4, EngineExited(1), ["start b:only as 2"]),
        ],
    )


def test_a_large_start_waits_for_two_small_engines_to_go() -> None:
    play(
        scheduler(sized("a", 5), sized("b", 5), sized("c", 9), primary=3, memory_bytes=10 * GB),
        [
            *loaded("ab"),
            (1, arrive(3, "c"), ["drain 1", "drain 2"]),
            (2, LeaseBack(1), ["stop 1"]),
            (3, EngineExited(1), []),
            (4, LeaseBack(2), ["stop 2"]),
            (5, EngineExited(2), ["start c:only as 3"]),
        ],
    )


def test_the_room_that_a_large_start_waits_for_is_not_taken_by_a_later_small_one() -> None:
    play(
        scheduler(
            sized("a", 5),
            sized("b", 5),
            sized("c", 9),
            sized("d", 5),
            primary=3,
            memory_bytes=10 * GB,
        ),
        [
            *loaded("ab"),
            (1, arrive(3, "c"), ["drain 1", "drain 2"]),
            (2, LeaseBack(1), ["stop 1"]),
            (3, EngineExited(1), []),
            (4, arrive(4, "d"), []),
        ],
    )


def test_an_engine_is_spared_if_a_larger_one_has_to_go_anyway() -> None:
    """The cheaper one is chosen first, but its memory is not enough."""
    play(
        scheduler(
            variant("a", declared=2 * GB, load_time_s=1),
            variant("b", declared=7 * GB, load_time_s=100),
            sized("c", 7),
            primary=3,
            memory_bytes=10 * GB,
        ),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (1, arrive(2, "b"), ["start b:only as 2"]),
            (101, ready(2), ["grant 2 engine 2"]),
            (102, LeaseBack(1), []),
            (102, LeaseBack(2), []),
            (103, arrive(3, "c"), ["stop 2"]),
        ],
    )


def test_a_variant_of_which_nothing_is_known_has_the_pool_for_itself() -> None:
    play(
        scheduler(sized("a", 1), B, sized("c", 1), primary=3, memory_bytes=10 * GB),
        [
            *loaded("a"),
            (1, LeaseBack(1), []),
            (2, arrive(2, "b"), ["stop 1"]),
            (3, EngineExited(1), ["start b:only as 2"]),
            (4, ready(2), ["grant 2 engine 2"]),
            (5, arrive(3, "c"), ["drain 2"]),
        ],
    )


def test_where_the_pools_memory_has_no_limit_nothing_needs_to_be_known() -> None:
    play(scheduler(A, sized("b", 900), primary=2), loaded("ab"))


@pytest.mark.parametrize(
    ("first", "measured", "decided"),
    [
        (variant("a"), 3, ["start b:only as 2"]),
        (variant("a", estimated=9 * GB), 3, ["drain 1"]),
        (variant("a", estimated=3 * GB), 6, ["drain 1"]),
        (variant("a", declared=9 * GB), 3, ["drain 1"]),
        (variant("a", declared=3 * GB), 9, ["start b:only as 2"]),
    ],
    ids=["unknown", "estimate too high", "estimate too low", "declared high", "declared low"],
)
def test_in_its_first_run_the_larger_of_estimate_and_measurement_counts_unless_declared(
    first: VariantFacts, measured: int, decided: list[str]
) -> None:
    play(
        scheduler(first, sized("b", 6), primary=2, memory_bytes=10 * GB),
        [
            *loaded("a"),
            (1, EngineMeasured(1, measured * GB), []),
            (2, arrive(2, "b"), decided),
        ],
    )


def test_once_it_has_run_what_was_measured_replaces_a_higher_estimate() -> None:
    play(
        scheduler(variant("a", estimated=9 * GB), sized("b", 6), primary=2, memory_bytes=10 * GB),
        [
            *loaded("a"),
            (1, EngineMeasured(1, 3 * GB), []),
            (2, EngineExited(1), []),
            (3, arrive(2, "a"), ["start a:only as 2"]),
            (4, ready(2), ["grant 2 engine 2"]),
            (5, arrive(3, "b"), ["start b:only as 3"]),
        ],
    )


def test_idle_engines_leave_a_pool_that_turned_out_to_be_too_full() -> None:
    play(
        scheduler(
            variant("a", estimated=2 * GB),
            variant("b", estimated=2 * GB),
            primary=2,
            memory_bytes=6 * GB,
        ),
        [
            *loaded("ab"),
            (1, LeaseBack(1), []),
            (2, LeaseBack(2), []),
            (3, EngineMeasured(1, 4 * GB), []),
            (4, EngineMeasured(2, 5 * GB), ["stop 1"]),
        ],
    )


def test_the_most_that_was_ever_measured_counts_also_for_the_next_engine_of_the_variant() -> None:
    play(
        scheduler(variant("a", estimated=1 * GB), sized("b", 6), primary=2, memory_bytes=10 * GB),
        [
            *loaded("a"),
            (1, EngineMeasured(1, 6 * GB), []),
            (2, EngineMeasured(1, 2 * GB), []),
            (3, LeaseBack(1), []),
            (4, arrive(2, "b"), ["stop 1"]),
            (5, EngineExited(1), ["start b:only as 2"]),
            (6, ready(2), ["grant 2 engine 2"]),
            (7, arrive(3, "a"), ["drain 2"]),
        ],
    )


def test_a_variant_that_turned_out_to_be_larger_than_the_pool_runs_alone() -> None:
    play(
        scheduler(variant("a", estimated=GB), sized("b", 1), primary=2, memory_bytes=10 * GB),
        [
            *loaded("a"),
            (1, EngineMeasured(1, 12 * GB), []),
            (2, LeaseBack(1), []),
            (3, arrive(2, "b"), ["stop 1"]),
            (4, EngineExited(1), ["start b:only as 2"]),
            (5, ready(2), ["grant 2 engine 2"]),
            (6, arrive(3, "a"), ["drain 2"]),
            (7, LeaseBack(2), ["stop 2"]),
            (8, EngineExited(2), ["start a:only as 3"]),
        ],
    )


def test_an_engine_that_grows_beyond_what_was_known_stops_no_other() -> None:
    play(
        scheduler(variant("a", estimated=GB), sized("b", 6), primary=2, memory_bytes=10 * GB),
        [*loaded("ab"), (1, EngineMeasured(1, 12 * GB), [])],
    )


def test_a_measurement_of_an_engine_that_is_gone_is_no_error() -> None:
    play(scheduler(A), [(0, EngineMeasured(7, GB), [])])
