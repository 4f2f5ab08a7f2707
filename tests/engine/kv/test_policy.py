"""What is kept of KV caches, and what is restored: numbers in, decisions out."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.kv.policy import (
    LEAST_TOKENS,
    Expected,
    KvCosts,
    best_continued,
    has_helped,
    in_order,
    is_continued,
    is_wanted,
    next_of,
    shared_prefix,
)
from trio_gateway.engine.scheduling.forecast import NEWEST_SHARE

SPEED = 200.0  # tokens/s
BYTES_PER_TOKEN = 23_000


def read(speed: float, tokens: int = 1000) -> Usage:
    """An answer whose prompt was read at this speed."""
    return Usage(tokens, read_tokens=tokens, read_ms=tokens / speed * 1000)


def measured(save_s: float, restore_s: float | None = None, tokens: int = 1000) -> KvCosts:
    """Costs of a model where moving so many tokens took so long."""
    costs = KvCosts()
    costs.note_usage(read(SPEED))
    costs.note_save(tokens, tokens * BYTES_PER_TOKEN, save_s * 1000)
    if restore_s is not None:
        costs.note_restore(tokens * BYTES_PER_TOKEN, restore_s * 1000)
    return costs


# -- is it worth it --------------------------------------------------------------------------


def test_a_conversation_shorter_than_the_least_is_not_worth_it() -> None:
    worth = measured(0.001).worth(LEAST_TOKENS - 1)
    assert not worth.is_worth
    assert worth.reason == f"{LEAST_TOKENS - 1} tokens are fewer than {LEAST_TOKENS}"


def test_a_conversation_of_the_least_size_is_worth_it_if_the_disk_is_fast() -> None:
    assert measured(0.001).worth(LEAST_TOKENS).is_worth


def test_the_least_is_256_tokens() -> None:
    assert LEAST_TOKENS == 256


def test_what_was_never_measured_is_tried() -> None:
    worth = KvCosts().worth(LEAST_TOKENS)
    assert (worth.is_worth, worth.reason) == (True, "its cost has not been measured yet")


def test_without_a_prompt_speed_it_is_tried() -> None:
    costs = KvCosts()
    costs.note_save(1000, 1000 * BYTES_PER_TOKEN, took_ms=3_600_000)
    assert costs.worth(1000).is_worth


def test_without_a_save_it_is_tried() -> None:
    costs = KvCosts()
    costs.note_usage(read(1_000_000.0))
    assert costs.worth(1000).is_worth


@pytest.mark.parametrize(
    ("save_s", "restore_s", "is_worth", "carry"),
    [(2.0, 2.9, True, "4.90"), (2.0, 3.1, False, "5.10"), (0.03, 0.01, True, "0.04")],
)
def test_it_is_worth_it_if_reading_again_takes_longer_than_save_and_restore(
    save_s: float, restore_s: float, is_worth: bool, carry: str
) -> None:
    worth = measured(save_s, restore_s).worth(1000)  # read again in 5 s
    assert worth.is_worth is is_worth
    assert worth.reason == f"reading again: 5.00 s, save and restore: {carry} s"


def test_a_restore_that_was_never_measured_counts_as_a_save() -> None:
    assert measured(2.0).carry_s(1000) == pytest.approx(4.0)
    assert measured(2.0, 0.5).carry_s(1000) == pytest.approx(2.5)


def test_costs_grow_with_the_tokens() -> None:
    costs = measured(2.0, 1.0)
    assert costs.carry_s(3000) == pytest.approx(9.0)
    assert costs.reread_s(3000) == pytest.approx(15.0)


def test_costs_that_were_never_measured_are_unknown() -> None:
    assert KvCosts().reread_s(1000) is KvCosts().carry_s(1000) is None


def test_each_measurement_moves_the_mean_by_its_share() -> None:
    costs = KvCosts()
    costs.note_usage(read(100.0))
    costs.note_usage(read(200.0))
    assert costs.prompt_speed == pytest.approx(100.0 + NEWEST_SHARE * 100.0)
    costs.note_save(1000, 1_000_000, 1000.0)
    costs.note_save(1000, 2_000_000, 1000.0)
    assert costs.bytes_per_token == pytest.approx(1000.0 + NEWEST_SHARE * 1000.0)
    assert costs.save_speed == pytest.approx(1_000_000 + NEWEST_SHARE * 1_000_000)
    costs.note_restore(1_000_000, 1000.0)
    assert costs.restore_speed == pytest.approx(1_000_000)


def test_a_short_prompt_says_nothing_of_the_speed() -> None:
    costs = KvCosts()
    costs.note_usage(read(SPEED, tokens=10))
    costs.note_usage(Usage(1000))
    assert costs.prompt_speed is None


def test_a_save_that_took_no_time_at_all_is_no_division_by_zero() -> None:
    costs = KvCosts()
    costs.note_usage(read(SPEED))
    costs.note_save(0, 1000, took_ms=0.0)
    costs.note_restore(1000, took_ms=0.0)
    assert costs.worth(1000).is_worth


# -- which are restored ----------------------------------------------------------------------


Saved = tuple[str, Sequence[int] | None]  # by name, the ids of its tokens
OLD: Saved = ("old", range(1000))
LONG: Saved = ("long", range(3000))
NEW: Saved = ("new", range(9, 999))


def order(saved: Sequence[Saved], prompts: Sequence[Sequence[int]]) -> list[str]:
    return in_order(dict(saved), lambda _: prompts)


def test_without_waiting_prompts_the_most_recently_used_goes_first() -> None:
    assert order([NEW, OLD, LONG], [])[:2] == ["new", "old"]


def test_what_a_waiting_prompt_continues_goes_first() -> None:
    assert order([NEW, OLD], [range(1500)])[:1] == ["old"]


def test_the_longest_shared_prefix_goes_first() -> None:
    assert order([NEW, OLD, LONG], [range(4000)])[:3] == ["long", "old", "new"]


def test_the_best_of_all_waiting_prompts_counts() -> None:
    other = range(9, 2000)
    assert order([OLD, NEW], [range(500), other])[:2] == ["new", "old"]


def test_of_equally_long_prefixes_the_most_recently_used_goes_first() -> None:
    assert order([OLD, LONG], [range(500)])[:2] == ["old", "long"]
    assert order([LONG, OLD], [range(500)])[:2] == ["long", "old"]


def test_conversations_of_unknown_tokens_come_by_recency() -> None:
    unknown = ("unknown", None)
    assert order([unknown, NEW, OLD], [range(1500)])[:3] == ["old", "unknown", "new"]


def test_a_shared_system_prompt_is_no_conversation() -> None:
    prompt = [*range(LEAST_TOKENS - 1), *range(5000, 6000)]
    assert order([NEW, OLD], [prompt])[:1] == ["new"]


def test_a_prefix_of_the_least_size_is_one() -> None:
    prompt = [*range(LEAST_TOKENS), *range(5000, 6000)]
    assert order([NEW, OLD], [prompt])[:1] == ["old"]


def test_no_more_are_restored_than_there_are_slots() -> None:
    assert order([OLD, NEW, LONG], [])[:0] == []
    assert order([OLD, NEW, LONG], [])[:2] == ["old", "new"]
    assert order([OLD], [])[:4] == ["old"]
    assert order([], [range(500)])[:4] == []


@pytest.mark.parametrize(
    ("prompt", "held", "best"),
    [
        (range(1200), (), "long"),
        (range(9, 2000), (), "new"),
        (range(1200), range(1200), None),
        (range(1200), range(1199), "long"),
        (range(LEAST_TOKENS - 1), (), None),
        (range(7000, 8000), (), None),
    ],
    ids=["the furthest", "another", "the slot has all", "the slot has less", "little", "nothing"],
)
def test_what_a_prompt_continues_furthest_comes_back(
    prompt: range, held: Sequence[int], best: str | None
) -> None:
    unknown: Saved = ("unknown", None)
    assert best_continued(dict([unknown, OLD, NEW, LONG]), prompt, held) == best


def test_a_restore_is_judged_by_a_prompt_that_goes_on_with_nearly_all_of_it() -> None:
    begins_alike, goes_on = range(899), range(900)
    prompts = {1: begins_alike, 2: goes_on, 3: goes_on}
    assert next_of(range(1000), 1000, None, prompts) == Expected(2, 900, False)
    assert next_of(range(1000), 1000, None, {1: begins_alike}) is None
    assert next_of(None, 1000, None, {1: goes_on}) is None


def test_a_prompt_that_shares_the_last_turn_s_but_four_tokens_is_certain_to_be_helped() -> None:
    """Whatever part of the conversation the answer is: an engine that cannot go back to any token
    can go back to there."""
    for prompt_tokens in (300, 700, 990):
        for less, is_certain in ((0, True), (4, True), (5, False)):
            shared = prompt_tokens - less
            prompt = [*range(shared), -7]
            found = next_of(range(1000), 1000, prompt_tokens, {1: prompt})
            if is_certain or shared >= 900:
                assert found == Expected(1, shared, is_certain)
            else:
                assert found is None


# -- what two conversations share ------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "shared"),
    [
        ([], [], 0),
        ([1], [], 0),
        ([1], [2], 0),
        ([1, 2, 3], [1, 2, 3], 3),
        ([1, 2, 3], [1, 2, 3, 4], 3),
        ([1, 2, 3, 9], [1, 2, 4, 9], 2),
    ],
)
def test_a_shared_prefix_ends_at_the_first_difference(
    a: list[int], b: list[int], shared: int
) -> None:
    assert shared_prefix(a, b) == shared_prefix(b, a) == shared
    assert shared_prefix(array("i", a), array("i", b)) == shared
    assert shared_prefix(array("i", a), tuple(b)) == shared


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_it_is_what_counting_gives(begin: list[int], a: list[int], b: list[int]) -> None:
    a, b = begin + a, begin + b
    differ = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    assert shared_prefix(a, array("i", b)) == (differ[0] if differ else min(len(a), len(b)))


def test_it_is_found_in_long_conversations() -> None:
    long = array("i", range(100_000))
    other = array("i", long)
    other[87_654] = -5
    assert shared_prefix(long, other) == 87_654


# -- is it the same conversation -------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "prompt"),
    [
        ([], range(100)),
        (range(100), range(200)),
        (range(100), range(100)),
        (range(100), range(50)),
        (range(100), [*range(50), *range(500, 600)]),
    ],
    ids=["an empty slot", "a next turn", "the same again", "cut to half", "another end"],
)
def test_a_prompt_goes_on_with_the_conversation(held: range, prompt: range | list[int]) -> None:
    assert is_continued(held, prompt)


@pytest.mark.parametrize(
    ("held", "prompt"),
    [
        (range(100), range(1000, 1200)),
        (range(100), range(49)),
        (range(100), [*range(49), *range(500, 600)]),
        (range(100), []),
    ],
    ids=["another", "less than half", "another after a shared start", "nothing"],
)
def test_a_prompt_is_another_conversation(held: range, prompt: range | list[int]) -> None:
    assert not is_continued(held, prompt)


# -- did it help -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "cached", "helped"),
    [(3190, 3190, True), (3190, 1595, True), (3190, 1594, False), (3190, 0, False), (0, 0, True)],
)
def test_a_restore_has_helped_if_half_of_its_tokens_were_not_read_again(
    expected: int, cached: int, helped: bool
) -> None:
    assert has_helped(expected, cached) is helped


def test_a_conversation_is_wanted_if_a_waiting_prompt_continues_it() -> None:
    assert is_wanted(range(1000), [range(5), range(1500)])
    assert not is_wanted(range(1000), [range(255)])
    assert not is_wanted(range(1000), [])
    assert not is_wanted(None, [range(1500)])


def test_a_restore_takes_as_long_as_the_last_ones_or_else_as_a_save() -> None:
    costs = KvCosts()
    assert costs.restore_s(10**9) == 0.0
    costs.note_save(1000, 10**6, 10.0)  # 100 MB/s
    assert costs.restore_s(10**9) == pytest.approx(10.0)
    costs.note_restore(10**6, 5.0)
    assert costs.restore_s(10**9) == pytest.approx(5.0)
