"""The arithmetic of what is held: who may hold how much, and what is said beyond that."""

from __future__ import annotations

import pytest

from trio_gateway.server.budget import Budget, Hold, NoRoom, default_memory_bytes

LIMIT = 1000


def held(budget: Budget, client: str, size: int) -> Hold:
    hold = budget.hold(client)
    hold.take(size)
    return hold


def refusal(hold: Hold, size: int) -> NoRoom:
    before = (hold.in_memory, hold._budget.memory.held)
    with pytest.raises(NoRoom) as caught:
        hold.take(size)
    assert (hold.in_memory, hold._budget.memory.held) == before
    return caught.value


def test_all_of_it_may_be_held_by_several_clients() -> None:
    budget = Budget(LIMIT)
    holds = [held(budget, client, 250) for client in "aabb"]
    error = refusal(budget.hold("c"), 1)
    assert (error.status, error.code) == (503, "too_much_held")
    assert ("Retry-After", "2") in error.headers()
    assert "server.max_buffered is 1000 B" in error.message
    assert budget.memory.refused == 1
    holds[0].close()
    held(budget, "c", 250).close()
    for hold in holds:
        hold.close()
    assert budget.memory.held == 0
    assert not budget.memory._by_client


def test_a_client_may_hold_half_of_it() -> None:
    budget = Budget(LIMIT)
    first = held(budget, "a", 300)
    second = held(budget, "a", 200)
    assert refusal(budget.hold("a"), 1).status == 503
    assert refusal(second, 1).status == 503
    held(budget, "b", 500)
    first.close()
    second.take(300)


def test_one_request_alone_may_hold_all_of_it_and_grow_to_that() -> None:
    budget = Budget(LIMIT)
    one = held(budget, "a", 100)
    for _ in range(9):
        one.take(100)
    assert refusal(budget.hold("b"), 1).status == 503
    one.close()
    held(budget, "a", 1000)


def test_what_never_fits_is_refused_for_good() -> None:
    error = refusal(Budget(LIMIT).hold("a"), LIMIT + 1)
    assert (error.status, error.code, error.retry_after_s) == (413, "body_too_large", None)
    growing = held(Budget(LIMIT), "a", LIMIT)
    assert refusal(growing, 1).status == 413


def test_files_are_counted_apart() -> None:
    budget = Budget(LIMIT, 2 * LIMIT)
    hold = held(budget, "a", LIMIT)
    hold.take_file(2 * LIMIT)
    assert budget.facts() == {
        "buffered_bytes": 1000, "max_buffered_bytes": 1000,
        "spooled_bytes": 2000, "max_spooled_bytes": 2000, "refused": 0,
    }  # fmt: skip
    with pytest.raises(NoRoom, match=r"server\.max_spooled is 2"):
        hold.take_file(1)
    hold.close()
    hold.close()
    assert (budget.memory.held, budget.files.held) == (0, 0)


def test_what_comes_after_the_end_counts_nowhere() -> None:
    budget = Budget(LIMIT)
    hold = held(budget, "a", 100)
    hold.close()
    hold.take(2 * LIMIT)
    hold.give(3 * LIMIT)
    hold.close()
    assert budget.memory.held == 0
    assert not budget.memory._by_client


def test_by_default_it_is_a_part_of_this_machine_s_memory() -> None:
    assert 64 * 1024**2 <= default_memory_bytes() <= 4 * 1024**3
