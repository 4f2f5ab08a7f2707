"""Which of several models a request gets: a table of situations for each strategy."""

from __future__ import annotations

import pytest

from trio_gateway.config.choice_schema import ChoiceConfig, Member, Strategy
from trio_gateway.models.choosing import Candidate, Standing, in_order

RUNS, STARTS, RESTS, FAILING = Standing


def choice(strategy: Strategy, spill_after: int | None = None) -> ChoiceConfig:
    members = tuple(Member(name, name) for name in "abc")
    return ChoiceConfig(name="one", members=members, strategy=strategy, spill_after=spill_after)


def order(given: ChoiceConfig, candidates: list[Candidate], **more: str) -> str:
    return "".join(candidates[turn.place].model for turn in in_order(given, candidates, **more))


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        ((RESTS, RESTS, RESTS), "abc"),
        ((RESTS, RUNS, RUNS), "bca"),
        ((RESTS, STARTS, RESTS), "bac"),
        ((STARTS, RESTS, RUNS), "cab"),
        ((FAILING, RESTS, RESTS), "bca"),
        ((FAILING, FAILING, FAILING), "abc"),
        ((RUNS, RUNS, RUNS), "abc"),
    ],
)
def test_loaded_takes_what_runs_then_what_starts_then_the_first(
    standings: tuple[Standing, ...], expected: str
) -> None:
    candidates = [Candidate(*pair, requests=9) for pair in zip("abc", standings, strict=True)]
    assert order(choice(Strategy.LOADED), candidates) == expected


@pytest.mark.parametrize(
    ("requests", "spill_after", "home", "expected"),
    [
        ((0, 0, 0), 1, "", "abc"),
        ((1, 0, 0), 1, "", "bca"),
        ((1, 1, 0), 1, "", "cab"),
        ((1, 1, 1), 1, "", "abc"),  # all have enough: the first of those with the fewest
        ((3, 2, 5), 1, "", "bac"),
        ((1, 0, 0), 2, "", "abc"),
        ((1, 0, 0), None, "", "abc"),  # its engine takes two at a time
        ((2, 0, 0), None, "", "bca"),
        ((0, 0, 0), 1, "b", "bac"),  # the conversation is there
        ((0, 1, 0), 1, "b", "acb"),  # but that has enough to do
        ((2, 2, 2), 1, "c", "cab"),
        ((0, 0, 0), 1, "gone", "abc"),
    ],
)
def test_spill_takes_the_next_where_those_before_have_enough_to_do(
    requests: tuple[int, ...], spill_after: int | None, home: str, expected: str
) -> None:
    candidates = [
        Candidate(name, RUNS, count, places=2) for name, count in zip("abc", requests, strict=True)
    ]
    assert order(choice(Strategy.SPILL, spill_after), candidates, home=home) == expected


def test_spill_leaves_those_for_last_that_cannot_start() -> None:
    candidates = [Candidate("a", FAILING), Candidate("b", RUNS, 7), Candidate("c")]
    assert order(choice(Strategy.SPILL, 1), candidates, home="a") == "cba"


def test_fits_keeps_the_order_whatever_runs() -> None:
    candidates = [Candidate("a", RESTS), Candidate("b", RUNS), Candidate("c", FAILING)]
    assert order(choice(Strategy.FITS), candidates) == "abc"
    assert order(choice(Strategy.FITS), candidates[::-1]) == "bac"


@pytest.mark.parametrize("strategy", Strategy)
def test_a_pin_leaves_no_other_and_one_that_is_not_there_counts_for_nothing(
    strategy: Strategy,
) -> None:
    candidates = [Candidate("a", RUNS), Candidate("b", FAILING, 9)]
    assert order(choice(strategy), candidates, pinned="b") == "b"
    assert order(choice(strategy), candidates, pinned="c") == "ab"


@pytest.mark.parametrize("strategy", Strategy)
def test_each_turn_says_why(strategy: Strategy) -> None:
    candidates = [
        Candidate(name, standing, 1) for name, standing in zip("abcd", Standing, strict=True)
    ]
    assert all(turn.why for turn in in_order(choice(strategy), candidates, home="b"))
