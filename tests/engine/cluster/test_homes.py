"""Where requests of a conversation go, of several replicas."""

from __future__ import annotations

from collections import Counter

from trio_gateway.cluster.homes import KEPT_MAX, KEPT_S, Homes

FREE = {"a": 0, "b": 0, "c": 0}


def placed(homes: Homes, key: str, told: dict[str, int], now: float = 0.0) -> str:
    """Where a request of it goes, which is soon over."""
    name = homes.order(key, told, now)[0]
    homes.begins("request", name, key, now)
    homes.ends("request", name)
    return name


def all_placed(homes: Homes, count: int, told: dict[str, int]) -> dict[str, str]:
    return {key: placed(homes, key, told) for key in (f"chat {n}" for n in range(count))}


def test_a_conversation_stays_where_it_is() -> None:
    homes = Homes(2)
    before = all_placed(homes, 50, FREE)
    assert all_placed(homes, 50, FREE) == before
    assert all_placed(homes, 50, {"c": 1, "a": 1, "b": 0}) == before


def test_a_few_conversations_are_spread_evenly() -> None:
    for count in (2, 3, 4, 6, 9):
        found = Counter(all_placed(Homes(2), count, FREE).values())
        assert max(found[name] for name in FREE) - min(found[name] for name in FREE) <= 1


def test_of_many_none_has_much_more_than_its_share() -> None:
    found = Counter(all_placed(Homes(2), 300, FREE).values())
    assert max(found.values()) <= 1.25 * 100
    assert min(found.values()) >= 50


def test_one_whose_replica_is_full_goes_elsewhere_and_stays_there() -> None:
    homes = Homes(2)
    first = placed(homes, "chat", FREE)
    second = placed(homes, "chat", {**FREE, first: 2})
    assert second != first
    assert placed(homes, "chat", FREE) == second


def test_what_a_replica_works_on_counts_as_well_as_what_it_says() -> None:
    homes = Homes(2)
    first = placed(homes, "chat", FREE)
    for request in ("1", "2"):
        homes.begins(request, first, "", 0.0)
    assert homes.order("chat", FREE, 0.0)[0] != first
    homes.ends("1", first)
    assert homes.order("chat", FREE, 0.0)[0] == first


def test_several_requests_of_one_conversation_at_a_time_do_not_move_it() -> None:
    """An agent's helpers may have its name; the longest of them has been at home all the time."""
    homes = Homes(2)
    first = placed(homes, "chat", FREE)
    for request in ("1", "2"):
        homes.begins(request, first, "chat", 0.0)
    second = placed(homes, "chat", FREE)
    assert second != first
    homes.ends("1", first)
    assert placed(homes, "chat", FREE) == first


def test_where_all_are_full_it_stays() -> None:
    homes = Homes(2)
    first = placed(homes, "chat", FREE)
    assert homes.order("chat", {"a": 2, "b": 3, "c": 2}, 0.0)[0] == first


def test_a_replica_that_comes_gets_what_is_new_and_nothing_that_is_old() -> None:
    homes, two = Homes(2), {"a": 0, "b": 0}
    before = all_placed(homes, 10, two)
    assert all_placed(homes, 10, FREE) == before
    assert [placed(homes, f"new {n}", FREE) for n in range(4)] == ["c"] * 4


def test_a_replica_that_goes_leaves_all_others_where_they_are() -> None:
    homes = Homes(2)
    before = all_placed(homes, 12, FREE)
    after = all_placed(homes, 12, {"a": 0, "b": 0})
    assert {key for key in before if before[key] != after[key]} == {
        key for key in before if before[key] == "c"
    }
    assert {*Counter(after.values()).values()} == {6}


def test_another_router_mostly_chooses_alike() -> None:
    one, other = Homes(2), Homes(2)
    before = all_placed(one, 200, FREE)
    after = {key: placed(other, key, FREE) for key in reversed(before)}
    assert sum(before[key] == after[key] for key in before) > 170


def test_what_was_not_used_for_an_hour_is_forgotten() -> None:
    homes = Homes(2)
    old = placed(homes, "old", FREE, now=0.0)
    moved = placed(homes, "old", {**FREE, old: 2}, now=1.0)
    assert homes.order("old", FREE, KEPT_S)[0] == moved
    assert homes.order("old", FREE, KEPT_S + 1.0)[0] == old


def test_it_remembers_no_more_than_it_may() -> None:
    homes = Homes(2)
    old = placed(homes, "old", FREE)
    moved = placed(homes, "old", {**FREE, old: 2})
    for n in range(KEPT_MAX - 1):
        homes.begins("request", moved, f"chat {n}", 0.0)
    homes.ends("request", moved)
    assert homes.order("old", FREE, 0.0)[0] == moved
    homes.begins("request", moved, "one more", 0.0)
    homes.ends("request", moved)
    assert homes.order("old", FREE, 0.0)[0] == old


def test_without_a_replica_there_is_no_place() -> None:
    assert Homes(2).order("chat", {}, 0.0) == []
