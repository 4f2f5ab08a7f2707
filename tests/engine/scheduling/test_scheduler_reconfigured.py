"""Another configuration, as tables: who lives on, who finishes and goes, who is told what."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from tests.support.scheduler_tables import (
    GB,
    GROWING,
    A,
    B,
    C,
    LeaseBack,
    Step,
    arrive,
    loaded,
    play,
    ready,
    scheduler,
    variant,
)
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    EngineFailed,
    EngineMeasured,
    Keep,
    Reconfigured,
    Reject,
    TimePassed,
    VariantFacts,
    VariantKey,
)


def now_has(
    *variants: VariantFacts,
    changed: str = "",
    primary: int = 1,
    memory_bytes: int | None = None,
    queue_limit: int = 256,
    queue_timeout_s: float = 600.0,
    window_s: float = 0.0,
    pools: Mapping[str, PoolConfig] | None = None,
) -> Reconfigured:
    """`changed`: models of one variant each."""
    return Reconfigured(
        variants=variants,
        pools=pools
        or {
            "primary": PoolConfig("primary", primary, memory_bytes),
            "secondary": PoolConfig("secondary"),
        },
        changed=frozenset(VariantKey(model, "only") for model in changed),
        queue_limit=queue_limit,
        queue_timeout_s=queue_timeout_s,
        fairness_window_s=window_s,
    )


def test_the_same_again_changes_nothing() -> None:
    subject = scheduler(A, B, primary=2)
    play(subject, [*loaded("ab"), (1, now_has(A, B, primary=2), [])])
    play(subject, [(2, LeaseBack(1), []), (3, arrive(3, "a"), ["grant 3 engine 1"])])


def test_an_engine_of_a_changed_variant_finishes_and_the_next_one_is_started_as_it_is_now() -> None:
    play(
        scheduler(A),
        [
            *loaded("a"),
            (1, now_has(A, changed="a"), ["drain 1"]),
            (2, arrive(2, "a"), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start a:only as 2"]),
            (5, ready(2), ["grant 2 engine 2"]),
        ],
    )


def test_where_there_is_room_the_new_one_starts_beside_the_old() -> None:
    play(
        scheduler(A, primary=2),
        [
            *loaded("a"),
            (1, arrive(2, "a"), []),
            (2, now_has(A, changed="a", primary=2), ["drain 1", "start a:only as 2"]),
            (3, ready(2), ["grant 2 engine 2"]),
            (4, LeaseBack(1), ["stop 1"]),
        ],
    )


@pytest.mark.parametrize("left", [(B,), (B, C)])
def test_idle_engines_of_what_is_gone_stop_at_once(left: tuple[VariantFacts, ...]) -> None:
    play(
        scheduler(A, B, primary=2),
        [
            *loaded("ab"),
            (1, LeaseBack(1), []),
            (2, now_has(*left, primary=2), ["stop 1"]),
            (3, arrive(3, "b"), []),
            (4, LeaseBack(2), ["grant 3 engine 2"]),
        ],
    )


def test_who_waits_for_what_is_gone_is_told_so_and_so_is_who_comes_for_it_later() -> None:
    subject = scheduler(A, B)
    play(subject, [*loaded("b"), (1, arrive(2, "a"), ["drain 1"])])
    actions = subject.handle(now_has(B), 2)
    (told,) = (a for a in actions if isinstance(a, Reject))
    assert (told.ticket, told.refusal.name) == (2, "MODEL_GONE")
    assert "no model a any more" in told.message
    play(subject, [(3, arrive(3, "a"), ["reject 3 MODEL_GONE"])])
    assert subject.preview("a", 10, 0, 4).variant is None


def test_a_start_of_what_is_gone_is_given_up() -> None:
    play(
        scheduler(A, B),
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, arrive(2, "b"), []),
            (2, now_has(B), ["stop 1", "reject 1 MODEL_GONE"]),
            (3, ready(1), []),  # it had got ready before its stop reached it
            (4, EngineExited(1), ["start b:only as 2"]),
        ],
    )


def test_who_waits_is_sized_again() -> None:
    small, large = GROWING
    wider = msgspec.structs.replace(large, context=9000)
    narrower = msgspec.structs.replace(large, context=2000)
    wait = [*loaded("b"), (1, arrive(2, "a", 3000), ["drain 1"])]
    subject = scheduler(B, small, large)
    play(subject, [*wait, (2, now_has(B, small), ["reject 2 TOO_LARGE", "resume 1"])])
    subject = scheduler(B, small, large)
    play(subject, [*wait, (2, now_has(B, small, narrower), ["reject 2 TOO_LARGE", "resume 1"])])
    subject = scheduler(B, small, large)
    play(
        subject,
        [
            *wait,
            (2, now_has(B, small, wider), []),
            (3, LeaseBack(1), ["stop 1"]),
            (4, EngineExited(1), ["start a:large as 2"]),
        ],
    )
    assert subject.state.engines[2].context == 9000


def test_what_was_learned_of_a_changed_variant_is_forgotten_and_of_others_kept() -> None:
    subject = scheduler(A, B, primary=2, memory_bytes=100 * GB)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (7, ready(1, 4, 900), ["grant 1 engine 1"]),
            (8, EngineMeasured(1, 5 * GB), []),
            (9, now_has(A, B, changed="b", primary=2, memory_bytes=100 * GB), []),
        ],
    )
    (a,) = subject.state.variants["a"]
    assert subject.state.variants.measured(a) == 5 * GB
    assert subject.state.variants.contexts("a") == [900]
    assert subject.state.forecast.known_load_s(a) == 7
    play(subject, [(10, now_has(A, B, changed="a", primary=2, memory_bytes=100 * GB), ["drain 1"])])
    assert subject.state.variants.measured(a) is None
    assert subject.state.variants.contexts("a") == [1000]
    assert subject.state.forecast.load_s(a) == 10


def test_what_an_engine_from_before_says_is_true_of_none_that_comes_after_it() -> None:
    small = variant("a", estimated=GB)
    subject = scheduler(small, primary=2, memory_bytes=100 * GB)
    changed = now_has(small, changed="a", primary=2, memory_bytes=100 * GB)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (1, changed, ["stop 1", "start a:only as 2"]),
            (2, ready(1, 9, 200), []),
            (3, EngineMeasured(1, 7 * GB), []),
            (4, EngineExited(1, "crashed"), []),
        ],
    )
    assert subject.state.variants.measured(small) is None
    assert subject.state.variants.contexts("a") == [1000]
    assert not subject.state.forecast.has_loaded(small)
    assert not subject.state.back_off.has_failed(small.key)


def test_memory_of_an_engine_from_before_counts_until_it_is_gone() -> None:
    """Nothing is known of the new one, so it has to be alone; then what it is measured to hold."""
    subject = scheduler(A, B, primary=2, memory_bytes=10 * GB)
    given = now_has(variant("a", declared=4 * GB), variant("b", declared=5 * GB),
                    changed="a", primary=2, memory_bytes=10 * GB)  # fmt: skip
    play(
        subject,
        [
            *loaded("a"),
            (1, EngineMeasured(1, 6 * GB), []),
            (2, given, ["drain 1"]),
            (3, arrive(2, "b"), []),  # 6 and 5 are too much
            (4, LeaseBack(1), ["stop 1"]),
            (5, EngineExited(1), ["start b:only as 2"]),
        ],
    )


def test_a_pause_after_failures_ends_with_what_failed() -> None:
    failing: list[Step] = [
        (0, arrive(1, "a"), ["start a:only as 1"]),
        (1, EngineFailed(1, "no such model"), ["reject 1 START_FAILED"]),
        (1, arrive(2, "a"), []),
    ]
    subject = scheduler(A)
    play(subject, [*failing, (1, now_has(A, B), [])])
    subject = scheduler(A)
    play(subject, [*failing, (1, now_has(A, changed="a"), ["start a:only as 2"])])


def test_other_timeouts_and_pins_hold_for_engines_that_run() -> None:
    subject = scheduler(A, B, primary=2)
    sooner = msgspec.structs.replace(A, idle_timeout_s=5.0)
    play(
        subject,
        [
            *loaded("ab"),
            (1, LeaseBack(1), []),
            (2, now_has(sooner, B, primary=2), []),
            (6, TimePassed(), ["stop 1"]),
        ],
    )


def test_what_was_asked_for_by_hand_stands_while_there_is_the_model() -> None:
    subject = scheduler(A, B)
    play(subject, [(0, Keep("a", pinned=True), []), (1, now_has(A, C), [])])
    assert subject.state.variants.is_pinned(A)
    play(subject, [(2, now_has(C), []), (3, now_has(A, C), [])])
    assert not subject.state.variants.is_pinned(A)


def test_a_smaller_pool_is_left_by_the_idle_first_and_by_the_others_once_they_are() -> None:
    play(
        scheduler(A, B, C, primary=3),
        [
            *loaded("abc"),
            (1, LeaseBack(2), []),
            (2, now_has(A, B, C, primary=1), ["stop 2", "drain 1"]),
            (3, arrive(4, "c"), []),
            (4, LeaseBack(1), ["stop 1"]),
            (5, LeaseBack(3), ["grant 4 engine 3"]),
        ],
    )


def test_less_memory_is_left_by_as_many_as_are_too_much() -> None:
    a, b, c = (variant(name, declared=size * GB) for name, size in (("a", 5), ("b", 2), ("c", 4)))
    play(
        scheduler(a, b, c, primary=3, memory_bytes=12 * GB),
        [
            *loaded("abc"),
            (1, LeaseBack(1), []),
            (2, LeaseBack(2), []),
            (3, now_has(a, b, c, primary=3, memory_bytes=7 * GB), ["stop 1"]),
        ],
    )


def test_a_model_in_another_pool_is_counted_there_without_a_restart() -> None:
    moved = variant("a", pool="secondary")
    play(
        scheduler(A, B),
        [
            *loaded("a"),
            (1, now_has(moved, B), []),
            (2, arrive(2, "b"), ["start b:only as 2"]),
            (3, LeaseBack(1), []),
            (4, arrive(3, "a"), ["grant 3 engine 1"]),
        ],
    )


def test_a_pool_that_is_gone_is_there_until_its_last_engine_is() -> None:
    subject = scheduler(variant("a", pool="secondary"), B)
    play(
        subject,
        [
            (0, arrive(1, "a"), ["start a:only as 1"]),
            (0, ready(1), ["grant 1 engine 1"]),
            (1, now_has(B, pools={"primary": PoolConfig("primary")}), ["drain 1"]),
            (2, LeaseBack(1), ["stop 1"]),
            (3, EngineExited(1), []),
            (4, now_has(B, pools={"primary": PoolConfig("primary")}), []),
        ],
    )
    assert list(subject.state.pools) == ["primary"]


def test_another_limit_of_the_queue_holds_for_who_comes_next() -> None:
    play(
        scheduler(A),
        [
            *loaded("a"),
            (1, arrive(2, "a"), []),
            (2, now_has(A, queue_limit=1, queue_timeout_s=5), []),
            (3, arrive(3, "a"), ["reject 3 QUEUE_FULL"]),
            (6, TimePassed(), ["reject 2 QUEUE_TIMEOUT"]),
        ],
    )
