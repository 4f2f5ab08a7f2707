"""What a waiting request is told, in each situation that the scheduler can be in."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.support.scheduler_tables import (
    GB,
    GROWING,
    LARGE,
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
    variant,
)
from trio_gateway.engine.scheduling.elsewhere_events import EngineWaking
from trio_gateway.engine.scheduling.events import (
    EngineExited,
    EngineFailed,
    TicketArrived,
    TimePassed,
    Unload,
    VariantFacts,
)
from trio_gateway.engine.scheduling.scheduler import Scheduler
from trio_gateway.engine.scheduling.sentence import Knows, all_known, sentence_of
from trio_gateway.engine.scheduling.waiting import Waiting, Waits

# A load takes 10 s and a lease 10 s, as the tables say.


def waiting(subject: Scheduler, ticket: int, now: float) -> Waiting:
    return Waits(subject.state, subject.window_s, now).of(subject.state.tickets[ticket])


def sentence(subject: Scheduler, ticket: int, now: float, knows: Knows = all_known) -> str:
    return sentence_of(waiting(subject, ticket, now), knows)


def sharing(slots: int = 4) -> list[Step]:
    """An engine of `a` whose slots share 1000 tokens; ticket 1 has 900 of them."""
    return [
        (0, arrive(1, "a", 900), ["start a:only as 1"]),
        (0, ready(1, slots=slots, shared_tokens=1000), ["grant 1 engine 1"]),
    ]


def reading(ticket: int, model: str) -> TicketArrived:
    return TicketArrived(ticket, model, 100, read_bytes=1000)


UNKNOWN = VariantFacts(
    key=variant("u").key, pool="primary", context=1000, load_time_known=False
)  # how long it loads
BIG, SMALL_ONE = variant("b", declared=6 * GB), variant("a", declared=5 * GB)
LARGE_C = (
    variant("a", declared=4 * GB), variant("b", declared=4 * GB), variant("c", declared=9 * GB)
)  # fmt: skip
HERE, THERE = (
    variant("a", endpoint="http://127.0.0.1:9000"),
    variant("b", pool="secondary", endpoint="http://127.0.0.1:9000"),
)


class Case(NamedTuple):
    """After these steps, at that time, the ticket is told this."""

    variants: tuple[VariantFacts, ...]
    steps: list[Step]
    ticket: int
    now: float
    sentence: str
    window_s: float = 0.0
    lease_s: float | None = 10.0
    primary: int = 1
    memory_bytes: int | None = None


CASES = {
    "its engine loads": Case(
        (A,), [(0, arrive(1, "a"), ["start a:only as 1"])], 1, 4,
        "waits for a to load (4 s of about 10 s); expected in about 6 s",
    ),
    "its engine loads, and others are before it": Case(
        (A,),
        [(0, arrive(1, "a"), ["start a:only as 1"]),
         (0, arrive(2, "a"), []), (0, arrive(3, "a"), [])],
        3, 4,
        "waits for a to load (4 s of about 10 s); 2 requests are before it; expected in about 26 s",
    ),
    "its engine loads for longer than ever": Case(
        (A,), [(0, arrive(1, "a"), ["start a:only as 1"])], 1, 40,
        "waits for a to load (40 s so far, mostly about 10 s)",
    ),
    "nobody knows how long its engine loads": Case(
        (UNKNOWN,), [(0, arrive(1, "u"), ["start u:only as 1"])], 1, 4,
        "waits for u to load (4 s so far)",
    ),
    "its machine is woken": Case(
        (A,), [(0, arrive(1, "a"), ["start a:only as 1"]), (2, EngineWaking(1), [])], 1, 4,
        "waits for the machine of a to wake (4 s so far)",
    ),
    "its machine is woken, and it is known how long that takes": Case(
        (A,),
        [(0, arrive(1, "a"), ["start a:only as 1"]), (2, EngineWaking(1), []),
         (30, ready(1), ["grant 1 engine 1"]), (40, LeaseBack(1), []),
         (60, EngineExited(1, "it sleeps", asleep=True), []),
         (60, arrive(2, "a"), ["start a:only as 2"]), (62, EngineWaking(2), [])],
        2, 70,
        "waits for the machine of a to wake (10 s of about 30 s); expected in about 20 s",
    ),
    "its machine was woken, and is awake this time": Case(
        (A,),
        [(0, arrive(1, "a"), ["start a:only as 1"]), (2, EngineWaking(1), []),
         (30, ready(1), ["grant 1 engine 1"]), (40, LeaseBack(1), []),
         (60, EngineExited(1, "it sleeps", asleep=True), []),
         (60, arrive(2, "a"), ["start a:only as 2"])],
        2, 64,
        "waits for a to load (4 s of about 10 s); expected in about 6 s",
    ),
    "no place is free": Case(
        (A,), [*loaded("a", slots=2), (0, arrive(2, "a"), ["grant 2 engine 1"]),
               (1, arrive(3, "a"), []), (1, arrive(4, "a"), [])],
        4, 2,
        "waits for a free place of a: 2 answers are running; 1 request is before it; "
        "expected in about 8 s",
    ),
    "no place is free, and nobody knows how long an answer takes": Case(
        (A,), [*loaded("a"), (1, arrive(2, "a"), [])], 2, 2,
        "waits for a free place of a: 1 answer is running",
        lease_s=None,
    ),
    "what runs only reads": Case(
        (A,),
        [(0, reading(1, "a"), ["start a:only as 1"]), (0, ready(1), ["grant 1 engine 1"]),
         (1, reading(2, "a"), [])],
        2, 2,
        "waits for a free place of a: 1 request is running",
    ),
    "the places share tokens": Case(
        (A,), [*sharing(), (1, arrive(2, "a", 300), [])], 2, 2,
        "waits for 300 tokens of the context that the places of a share: 1 answer is running; "
        "expected in about 8 s",
    ),
    "the places share tokens, and it may need fewer": Case(
        (A,), [*sharing(), (1, arrive(2, "a", 300, least=50), ["count 2"])], 2, 2,
        "waits for a to count its tokens",
    ),
    "another model is busy": Case(
        (A, B), [*loaded("a", slots=2), (0, arrive(2, "a"), ["grant 2 engine 1"]),
                 (1, arrive(3, "b"), ["drain 1"])],
        3, 2,
        "waits for 2 answers of a to end, then b loads (about 10 s); expected in about 18 s",
    ),
    "another model is busy, and nobody knows for how long, nor how long its own load takes": Case(
        (A, UNKNOWN), [*loaded("a"), (1, arrive(2, "u"), ["drain 1"])], 2, 2,
        "waits for 1 answer of a to end, then u loads",
        lease_s=None,
    ),
    "another model is unloaded by hand": Case(
        (A, B), [*loaded("a"), (1, Unload("a"), ["drain 1"]), (1, arrive(2, "b"), [])], 2, 2,
        "waits for 1 answer of a to end, then b loads (about 10 s); expected in about 18 s",
        window_s=5,
    ),
    "two models are busy, and there are places for two": Case(
        LARGE_C,
        [*loaded("ab"), (1, arrive(3, "c"), ["drain 1", "drain 2"])], 3, 2,
        "waits for 2 answers of a and b to end, for their memory, then c loads (about 10 s); "
        "expected in about 18 s",
        primary=3, memory_bytes=9 * GB,
    ),
    "its memory is not free": Case(
        (SMALL_ONE, BIG), [*loaded("a"), (1, arrive(2, "b"), ["drain 1"])], 2, 2,
        "waits for 1 answer of a to end, for its memory, then b loads (about 10 s); "
        "expected in about 18 s",
        primary=2, memory_bytes=10 * GB,
    ),
    "its memory is not free, and the other model has its turn": Case(
        (SMALL_ONE, BIG), [*loaded("a"), (5, arrive(2, "b"), [])], 2, 8,
        "waits for the turn of a to end (at most 17 s) and for 1 answer to end, for its memory, "
        "then b loads (about 10 s); expected in about 12 s",
        window_s=20, primary=2, memory_bytes=10 * GB,
    ),
    "its memory is not free, and the other model takes what came before": Case(
        (SMALL_ONE, BIG),
        [*loaded("a"), (1, arrive(2, "a"), []), (2, arrive(3, "b"), []), (2, arrive(4, "a"), [])],
        3, 8,
        "waits for a to take what came before it (at most 12 s) and for 1 answer to end, for its "
        "memory, then b loads (about 10 s); 2 requests are before it; expected in about 20 s",
        window_s=5, primary=2, memory_bytes=10 * GB,
    ),
    "another engine has its address": Case(
        (HERE, THERE), [*loaded("a"), (1, arrive(2, "b"), ["drain 1"])], 2, 2,
        "waits for 1 answer of a to end, for the address that both have, then b loads "
        "(about 10 s); "
        "expected in about 10 s",
    ),
    "another model has its turn": Case(
        (A, B), [*loaded("a"), (5, arrive(2, "b"), []), (5, arrive(3, "a"), [])], 2, 8,
        "waits for the turn of a to end (at most 17 s) and for 1 answer to end, then b loads "
        "(about 10 s); 1 request is before it; expected in about 32 s",
        window_s=20,
    ),
    "another model has its turn for as long as it has requests": Case(
        (A, B), [*loaded("a"), (5, arrive(2, "b"), [])], 2, 8,
        "waits for a to be idle and for 1 answer to end, then b loads (about 10 s); "
        "expected in about 12 s",
        window_s=float("inf"),
    ),
    "another model takes what came before": Case(
        (A, B),
        [*loaded("a"), (1, arrive(2, "a"), []), (2, arrive(3, "b"), []), (2, arrive(4, "a"), [])],
        3, 8,
        "waits for a to take what came before it (at most 12 s) and for 1 answer to end, then b "
        "loads (about 10 s); 2 requests are before it; expected in about 20 s",
        window_s=5,
    ),
    "another model loads, and then has its turn": Case(
        (A, B), [(0, arrive(1, "a"), ["start a:only as 1"]), (1, arrive(2, "b"), [])], 2, 4,
        "waits for a to load (4 s of about 10 s) and have its turn, then b loads (about 10 s); "
        "1 request is before it; expected in about 26 s",
        window_s=5,
    ),
    "another model stops": Case(
        (A, B),
        [*loaded("a"), (1, LeaseBack(1), []), (2, arrive(2, "b"), ["stop 1"])], 2, 3,
        "waits for a to stop, then b loads (about 10 s); expected in about 10 s",
    ),
    "another model is in line before": Case(
        (A, B, C), [*loaded("a"), (1, arrive(2, "b"), ["drain 1"]), (1, arrive(3, "c"), [])], 3, 2,
        "waits for the turn of b before it, then c loads (about 10 s); 1 request is before it; "
        "expected in about 38 s",
    ),
    "its engine makes way for another model that was before it": Case(
        (A, B),
        [*loaded("a"), (0, arrive(2, "a"), []), (1, arrive(3, "b"), []), (8, arrive(4, "a"), [])],
        4, 9,
        "waits for the turn of b before it, then a loads (less than 1 s); 1 request is before it",
        window_s=5,
    ),
    "its model had its turn, and what came before the other one has not been served": Case(
        (A, B),
        [*loaded("a"), (1, arrive(2, "a"), []), (2, arrive(3, "b"), []),
         (20, TimePassed(), ["drain 1"])],
        2, 21,
        "waits for the turn of b before it, then a loads (less than 1 s); 1 request is before it; "
        "expected in about 49 s",
        window_s=5, lease_s=30,
    ),
    "the other one is before it": Case(
        (A, B),
        [*loaded("a"), (1, arrive(2, "a"), []), (2, arrive(3, "b"), []),
         (20, TimePassed(), ["drain 1"])],
        3, 21,
        "waits for 1 answer of a to end, then b loads (about 10 s); expected in about 19 s",
        window_s=5, lease_s=30,
    ),
    "it needs a larger engine than the one that runs": Case(
        GROWING, [(0, arrive(1, "a"), ["start a:small as 1"]), (0, ready(1), ["grant 1 engine 1"]),
                  (1, arrive(2, "a", LARGE), ["drain 1"])],
        2, 2,
        "waits for 1 answer of a:small to end, then a:large loads (about 10 s); "
        "expected in about 18 s",
    ),
    "its model has failed": Case(
        (A,), [(0, arrive(1, "a"), ["start a:only as 1"]),
               (0, EngineFailed(1, "boom"), ["reject 1 START_FAILED"]), (0.25, arrive(2, "a"), [])],
        2, 0.5,
        "waits as a:only failed once; the next start is in 0.5 s; then it loads (about 10 s); "
        "expected in about 11 s",
    ),
    "an engine that loads is to count it": Case(
        GROWING,
        [(0, arrive(1, "a"), ["start a:small as 1"]), (1, arrive(2, "a", LARGE, least=40), [])],
        2, 2,
        "waits for a to load (2 s of about 10 s), which will count its tokens; "
        "1 request is before it",
    ),
    "an engine counts it": Case(
        GROWING,
        [(0, arrive(1, "a"), ["start a:small as 1"]), (1, arrive(2, "a", LARGE, least=40), []),
                  (3, ready(1), ["grant 1 engine 1", "count 2"])],
        2, 4,
        "waits for a to count its tokens",
    ),
    "a batch request waits until no interactive one wants the engine": Case(
        (A, B), [*loaded("a"), (5, batch(2, "b"), [])], 2, 8,
        "waits, as a batch request, until no interactive request wants a (at most 3 min 20 s) and "
        "for 1 answer to end, then b loads (about 10 s); expected in about 12 s",
        window_s=20,
    ),
    "a batch request has aged": Case(
        (A, B), [*loaded("a"), (1, batch(2, "b"), []), (11, TimePassed(), ["drain 1"])], 2, 12,
        "waits for 1 answer of a to end, then b loads (about 10 s)",
        window_s=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_request_is_told(case: Case) -> None:
    subject = scheduler(
        *case.variants,
        window_s=case.window_s,
        lease_s=case.lease_s,
        primary=case.primary,
        memory_bytes=case.memory_bytes,
    )
    play(subject, case.steps)
    assert sentence(subject, case.ticket, case.now) == case.sentence


def allows(*names: str) -> Knows:
    return lambda model: model in names


def test_who_may_not_use_a_model_does_not_learn_its_name() -> None:
    subject = scheduler(A, B, variant("c", declared=9 * GB), primary=3, memory_bytes=9 * GB)
    play(subject, [*loaded("a"), (1, arrive(2, "c"), ["drain 1"])])
    then = "to end, for its memory, then c loads (about 10 s); expected in about 18 s"
    assert sentence(subject, 2, 2) == f"waits for 1 answer of a {then}"
    assert sentence(subject, 2, 2, allows("c")) == f"waits for 1 answer of another model {then}"


@pytest.mark.parametrize(
    ("known", "names"),
    [("abc", "a and b"), ("ac", "a and another model"), ("c", "other models")],
)
def test_of_several_models_those_are_named_that_may_be_used(known: str, names: str) -> None:
    subject = scheduler(*LARGE_C, primary=3, memory_bytes=9 * GB)
    play(subject, [*loaded("ab"), (1, arrive(3, "c"), ["drain 1", "drain 2"])])
    said = sentence(subject, 3, 2, allows(*known))
    assert said.startswith(f"waits for 2 answers of {names} to end, for their memory, then c loads")


def test_what_all_tickets_wait_for_is_what_each_waits_for() -> None:
    subject = scheduler(A, B, C)
    play(subject, [*loaded("a"), (1, arrive(2, "b"), ["drain 1"])])
    play(subject, [(1, arrive(number, "bc"[number % 2]), []) for number in range(3, 9)])
    waits = Waits(subject.state, subject.window_s, 2)
    tickets = subject.state.tickets
    found = waits.of_all(tickets.values())
    assert found == {number: waiting(subject, number, 2) for number in tickets}
