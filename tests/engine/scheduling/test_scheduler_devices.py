"""Memory that other programs have as well, devices, and room that is yielded."""

from __future__ import annotations

import msgspec
import pytest

from tests.support.scheduler_tables import (
    GB,
    A,
    LeaseBack,
    Step,
    arrive,
    brief,
    loaded,
    play,
    ready,
    variant,
)
from trio_gateway.config.pool_schema import PoolConfig, PoolDevice
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    Grant,
    Start,
    TicketGone,
    TimePassed,
    VariantFacts,
)
from trio_gateway.engine.scheduling.memory_events import (
    Holding,
    MemorySeen,
    PlaceSeen,
    Yield,
    YieldOver,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.sentence import sentence_of
from trio_gateway.engine.scheduling.waiting import Waits

COMFY = (Holding("ComfyUI", 9 * GB),)


def sized(model: str, size: int, *, devices: int = 1, pinned: bool = False) -> VariantFacts:
    facts = variant(model, declared=size * GB, pinned=pinned)
    return msgspec.structs.replace(facts, devices=devices)


def pooled(pool: PoolConfig, *variants: VariantFacts) -> Scheduler:
    return Scheduler(variants, {"primary": pool}, fairness_window_s=0.0, queue_timeout_s=100.0)


def auto(*variants: VariantFacts, engines: int = 3) -> Scheduler:
    """On a device of 20 GB, without a reserve."""
    return pooled(PoolConfig("primary", engines, memory_auto=True, reserve=0), *variants)


def seen(others: int, *holders: Holding) -> MemorySeen:
    return MemorySeen("primary", (PlaceSeen("", 20 * GB, others * GB, holders),))


def sentence(subject: Scheduler, ticket: int, now: float) -> str:
    state = subject.state
    return sentence_of(Waits(state, 0.0, now).of(state.tickets[ticket]))


# -- what is free now -------------------------------------------------------------------------


def test_before_a_start_somebody_looks_at_the_memory() -> None:
    play(
        auto(sized("a", 8), sized("b", 8)),
        [
            (0, arrive(1, "a"), ["look primary"]),
            (0, arrive(2, "b"), []),
            (0.1, seen(0), ["start a:only as 1", "start b:only as 2"]),
            (5, TicketGone(1), ["stop 1"]),
        ],
    )


def test_what_was_seen_a_while_ago_is_looked_at_again() -> None:
    play(
        auto(sized("a", 8), sized("b", 8)),
        [
            (0, seen(0), []),
            (2, arrive(1, "a"), ["start a:only as 1"]),
            (4, arrive(2, "b"), ["look primary"]),
            (4, seen(0), ["start b:only as 2"]),
        ],
    )


def test_nothing_starts_that_does_not_fit_until_it_does_and_others_do_not_wait_for_it() -> None:
    subject = auto(sized("a", 12), sized("b", 4))
    play(subject, [(0, arrive(1, "a"), ["look primary"]), (0, seen(9, *COMFY), [])])
    assert sentence(subject, 1, 0) == (
        "waits for memory: a needs 11.2 GiB, 10.2 GiB can be had; "
        "other programs hold 8.4 GiB (ComfyUI 8.4 GiB)"
    )
    play(
        subject,
        [
            (1, arrive(2, "b"), ["start b:only as 1"]),
            (2, ready(1), ["grant 2 engine 1"]),
            (3, LeaseBack(1), []),
            (4, seen(0), ["start a:only as 2"]),
        ],
    )


def test_it_gives_up_in_the_end_and_says_who_holds_the_memory() -> None:
    subject = auto(sized("a", 12))
    subject.handle(arrive(1, "a"), 0)
    subject.handle(seen(9, *COMFY), 0)
    [told] = subject.handle(TimePassed(), 100)
    assert "ComfyUI 8.4 GiB" in str(told)
    assert told.retry_after_s == 10  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("others", "leave"),
    [
        (0, []),
        (5, ["stop 3"]),  # the one that is cheapest to lose
        (9, ["stop 3", "stop 1"]),
        (15, ["stop 3", "stop 1", "stop 2"]),  # pinned ones last
    ],
)
def test_idle_engines_leave_when_others_take_memory(others: int, leave: list[str]) -> None:
    cheap = msgspec.structs.replace(sized("c", 4), load_time_s=1.0)
    subject = auto(sized("a", 8), sized("b", 6, pinned=True), cheap)
    steps: list[Step] = [
        (0, seen(0), []),
        *loaded("abc"),
        *((1, LeaseBack(n), []) for n in (1, 2, 3)),
    ]
    for facts in (sized("a", 8), cheap):
        subject.state.forecast.load_took(facts.key, facts.load_time_s)
    play(subject, [*steps, (2, seen(others), leave)])


def test_what_is_in_use_stays_and_leaves_once_it_is_idle() -> None:
    play(
        auto(sized("a", 12)),
        [
            (0, seen(0), []),
            *loaded("a"),
            (1, seen(15), []),
            (2, LeaseBack(1), []),
            (3, seen(15), ["stop 1"]),
        ],
    )


def test_the_last_half_of_the_reserve_is_no_reason_to_leave() -> None:
    pool = PoolConfig("primary", 3, memory_auto=True, reserve=2 * GB)
    play(
        pooled(pool, sized("a", 12)),
        [
            (0, seen(7), []),
            (0, arrive(1, "a"), []),  # 20 less 7 and the reserve
            (0, seen(6), ["start a:only as 1"]),
            (1, ready(1), ["grant 1 engine 1"]),
            (2, LeaseBack(1), []),
            (3, seen(7), []),
            (4, seen(8), ["stop 1"]),
        ],
    )


def test_one_that_is_larger_than_all_there_ever_is_runs_alone() -> None:
    play(
        auto(sized("a", 30)),
        [(0, seen(9), []), (0, arrive(1, "a"), ["start a:only as 1"])],
    )


def test_a_device_that_cannot_be_read_limits_nothing() -> None:
    play(
        auto(sized("a", 12), sized("b", 12)),
        [
            (0, arrive(1, "a"), ["look primary"]),
            (0, MemorySeen("primary", ()), ["start a:only as 1"]),
            (1, arrive(2, "b"), ["start b:only as 2"]),
        ],
    )


# -- devices ----------------------------------------------------------------------------------


def on_two(*variants: VariantFacts, first: int = 10, second: int = 8) -> Scheduler:
    devices = PoolDevice("cuda:0", first * GB), PoolDevice("cuda:1", second * GB)
    return pooled(PoolConfig("primary", 9, devices=devices), *variants)


def places(subject: Scheduler, models: str) -> list[tuple[str, ...]]:
    """The devices of the engines that are started for these models, one after the other."""
    found = []
    for number, model in enumerate(models, 1):
        for action in subject.handle(arrive(number, model), number):
            if isinstance(action, Start):
                found.append(action.devices)
                [granted] = subject.handle(ready(action.engine), number)
                assert isinstance(granted, Grant)
    return found


def test_each_engine_is_placed_where_most_room_is() -> None:
    subject = on_two(sized("a", 6), sized("b", 6), sized("c", 3), sized("d", 2))
    assert places(subject, "abcd") == [("cuda:0",), ("cuda:1",), ("cuda:0",), ("cuda:1",)]


def test_one_that_wants_two_devices_is_divided_as_they_have_room() -> None:
    subject = on_two(sized("a", 17, devices=2))
    assert places(subject, "a") == [("cuda:0", "cuda:1")]
    shares = dict(subject.state.engines[1].places)
    assert shares["cuda:0"] == pytest.approx(10 / 18)


def test_the_device_is_chosen_where_least_has_to_leave() -> None:
    play(
        on_two(sized("a", 9), sized("b", 7), sized("c", 7)),
        [
            *loaded("ab"),
            (1, LeaseBack(2), []),
            (2, arrive(3, "c"), ["stop 2"]),
            (3, EngineExited(2), ["start c:only as 3"]),
        ],
    )


def test_one_of_unknown_size_has_a_device_for_itself() -> None:
    subject = on_two(A, variant("b"), variant("c"))
    assert places(subject, "ab") == [("cuda:0",), ("cuda:1",)]
    assert [brief(a) for a in subject.handle(arrive(3, "c"), 9)] == ["drain 2"]


def test_what_other_programs_take_of_one_device_leaves_the_other_alone() -> None:
    devices = PoolDevice("cuda:0"), PoolDevice("cuda:1")
    subject = pooled(
        PoolConfig("primary", 9, devices=devices, reserve=0), sized("a", 8), sized("b", 8)
    )

    def both(first: int, second: int) -> MemorySeen:
        sizes = (("cuda:0", first), ("cuda:1", second))
        return MemorySeen(
            "primary", tuple(PlaceSeen(name, 10 * GB, n * GB, COMFY) for name, n in sizes)
        )

    play(
        subject,
        [
            (0, both(0, 0), []),
            *loaded("ab"),
            (1, LeaseBack(1), []),
            (1, LeaseBack(2), []),
            (2, both(0, 5), ["stop 2"]),
            (3, EngineExited(2), []),
            (3, both(0, 5), []),
        ],
    )
    play(subject, [(3, arrive(3, "b"), ["stop 1"]), (4, EngineExited(1), ["start b:only as 3"])])
    assert subject.state.engines[3].places == (("cuda:0", 1.0),)


# -- yields -----------------------------------------------------------------------------------


def fixed(*variants: VariantFacts) -> Scheduler:
    return pooled(PoolConfig("primary", 3, 20 * GB), *variants)


def test_idle_engines_make_room_and_nothing_takes_it_until_the_end() -> None:
    subject = fixed(sized("a", 12), sized("b", 4))
    play(
        subject,
        [
            *loaded("ab"),
            (1, LeaseBack(1), []),
            (1, LeaseBack(2), []),
            (2, Yield(1, "primary", 12 * GB), ["stop 1"]),
            (3, EngineExited(1), ["room 1"]),
            (4, arrive(3, "a"), []),
            (4, arrive(4, "b"), ["grant 4 engine 2"]),
        ],
    )
    assert "11.2 GiB are yielded to another program" in sentence(subject, 3, 4)
    play(subject, [(5, YieldOver(1), ["start a:only as 3"])])


def test_busy_engines_finish_first_and_take_nothing_new() -> None:
    play(
        fixed(sized("a", 12)),
        [
            *loaded("a", slots=2),
            (1, Yield(1, "primary", 12 * GB), ["drain 1"]),
            (2, arrive(2, "a"), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["room 1"]),
            (5, YieldOver(1), ["start a:only as 2"]),
        ],
    )


def test_one_that_ends_before_the_engine_has_left_calls_it_back() -> None:
    play(
        fixed(sized("a", 12)),
        [
            *loaded("a"),
            (1, Yield(1, "primary", 12 * GB), ["drain 1"]),
            (2, YieldOver(1), ["resume 1"]),
        ],
    )


def test_its_time_begins_when_the_room_is_there() -> None:
    subject = fixed(sized("a", 12))
    play(subject, [(0, Yield(1, "primary", 12 * GB, 30), ["room 1"])])
    assert subject.next_deadline() == 30
    play(subject, [(30, TimePassed(), ["over 1"])])
    assert subject.next_deadline() is None


def test_two_add_up_and_the_first_does_not_wait_for_the_second() -> None:
    play(
        fixed(sized("a", 12), sized("b", 4)),
        [
            *loaded("ab"),
            (1, LeaseBack(2), []),
            (2, Yield(1, "primary", 8 * GB), ["stop 2"]),
            (2, Yield(2, "primary", 6 * GB), ["drain 1"]),
            (3, EngineExited(2), ["room 1"]),
            (4, LeaseBack(1), ["stop 1"]),
            (5, EngineExited(1), ["room 2"]),
        ],
    )


def test_what_the_program_takes_then_is_not_counted_twice() -> None:
    subject = auto(sized("a", 8))
    play(
        subject,
        [
            (0, seen(0), []),
            (0, Yield(1, "primary", 12 * GB), ["room 1"]),
            (1, seen(12), []),
            (1, arrive(1, "a"), ["start a:only as 1"]),
        ],
    )


def test_in_a_pool_without_a_limit_nothing_runs_meanwhile() -> None:
    play(
        pooled(PoolConfig("primary", 2), A),
        [
            *loaded("a"),
            (1, LeaseBack(1), []),
            (1, Yield(1, "primary", GB), ["stop 1"]),
            (2, EngineExited(1), ["room 1"]),
            (3, arrive(2, "a"), []),
            (4, YieldOver(1), ["start a:only as 2"]),
        ],
    )
