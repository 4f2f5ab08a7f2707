"""Which site gets a request, by what is known of each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.engine.sites.choice import (
    STICKS_MORE,
    STICKS_TIMES,
    SiteView,
    in_order,
    least_loaded,
)
from trio_gateway.engine.sites.circuit import Use

Facts = dict[str, Any]


def sites(*facts: Facts) -> list[SiteView]:
    return [
        SiteView(**{"name": "abcdefgh"[n], "use": Use.GOOD, **of}) for n, of in enumerate(facts)
    ]


BAD, NEW = {"use": Use.LAST_RESORT}, {"use": Use.UNKNOWN}


@pytest.mark.parametrize(
    ("facts", "chosen"),
    [
        ([{}, {}], 0),
        ([{"ours": 9}, {}], 0),
        ([BAD, {}], 1),
        ([BAD, NEW, {}], 2),
        ([BAD, NEW], 1),
        ([BAD, BAD], 0),
    ],
)
def test_in_order_it_is_the_first_that_works(facts: list[Facts], chosen: int) -> None:
    assert in_order(sites(*facts)).site == chosen


@pytest.mark.parametrize(
    ("facts", "chosen", "why"),
    [
        ([{"ours": 1}, {}], 1, "b: 0 of ours there, 1 of ours at a"),
        ([{"ours": 2, "weight": 4}, {"ours": 1}], 0, "a: 2 of ours there, 1 of ours at b"),
        ([{"others": 3}, {"ours": 1, "others": 0}], 1,
         "b: 1 of ours there, 0 of ours at a and 3 of others"),
        ([{"slowness": 3.0}, {"ours": 1}], 1,
         "b: 1 of ours there, 0 of ours at a (3.0 times as slow)"),
        ([{"slowness": 3.0}, {"ours": 3}], 0,
         "a: 0 of ours there (3.0 times as slow), 3 of ours at b"),
        ([BAD, {"ours": 50}], 1, "b: 50 of ours there, 0 of ours at a (does not work)"),
        ([NEW, {"ours": 50}], 1, "b: 50 of ours there, 0 of ours at a"),
        ([BAD, NEW], 1, "b: 0 of ours there, 0 of ours at a (does not work)"),
        ([{"chosen": 8}, {"chosen": 7}], 1, "b: 0 of ours there, 0 of ours at a"),
        # One that does not tell is taken to be as busy as the others are.
        ([{}, {"others": 5, "ours": 1}], 0,
         "a: 0 of ours there, 1 of ours at b and 5 of others"),
        ([{"ours": 2}, {"others": 5, "ours": 1}], 1,
         "b: 1 of ours there and 5 of others, 2 of ours at a"),
    ],
)  # fmt: skip
def test_otherwise_it_is_the_one_with_least_to_do(
    facts: list[Facts], chosen: int, why: str
) -> None:
    choice = least_loaded(sites(*facts))
    assert (choice.site, choice.why) == (chosen, why)


@pytest.mark.parametrize(
    ("facts", "last", "chosen", "why"),
    [
        ([{"ours": 1}, {}], 0, 0, "a: has the conversation; 1 of ours there"),
        ([{"ours": 3}, {}], 0, 0, "a: has the conversation; 3 of ours there"),
        ([{"ours": 4}, {}], 0, 1, "b: a has the conversation, and too much to do; 0 of ours"),
        ([{"ours": 5}, {"ours": 1}], 0, 0, "a: has the conversation; 5 of ours there"),
        ([{"slowness": 4.0}, {}], 0, 0, "a: has the conversation; 0 of ours there"),
        ([BAD, {"ours": 9}], 0, 1, "b: a does not work; 9 of ours there"),
        ([{}, {"ours": 1}], 0, 0, "a: has the conversation, and 0 of ours there"),
        # Where none works, it is in the cache of one all the same.
        ([{"ours": 1, **BAD}, BAD], 0, 0, "a: has the conversation; 1 of ours there"),
        # Weights count by what they are to each other.
        ([{"ours": 4, "weight": 100}, {"weight": 100}], 0, 1, "b: a has the conversation, and too"),
    ],
)
def test_a_conversation_stays_until_its_site_has_much_more_to_do(
    facts: list[Facts], last: int, chosen: int, why: str
) -> None:
    choice = least_loaded(sites(*facts), last)
    assert choice.site == chosen
    assert choice.why.startswith(why)


VIEWS = st.lists(
    st.builds(
        SiteView,
        name=st.just("x"),
        use=st.sampled_from(Use),
        ours=st.integers(0, 50),
        others=st.none() | st.integers(0, 50),
        weight=st.sampled_from([0.5, 1.0, 2.0, 10.0]),
        slowness=st.floats(1.0, 4.0),
        chosen=st.integers(0, 100),
    ),
    min_size=1,
    max_size=6,
)


@given(VIEWS, st.integers(-1, 5))
def test_one_that_works_is_always_preferred(views: list[SiteView], last: int) -> None:
    stays = last if 0 <= last < len(views) else None
    best = min(view.use for view in views)
    assert views[least_loaded(views, stays).site].use is best
    assert views[in_order(views).site].use is best


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=1, max_size=5), st.integers(1, 200))
def test_requests_that_come_at_once_are_spread_by_weight(weights: list[float], count: int) -> None:
    """What was sent counts at once: they do not all go to the one that was the best."""
    ours, chosen = [0] * len(weights), [0] * len(weights)
    for number in range(1, count + 1):
        facts = [
            {"ours": o, "weight": w, "chosen": c}
            for o, w, c in zip(ours, weights, chosen, strict=True)
        ]
        site = least_loaded(sites(*facts)).site
        ours[site] += 1
        chosen[site] = number
    for n, weight in enumerate(weights):
        share = count * weight / sum(weights)
        assert abs(ours[n] - share) <= len(weights) + 1


def test_requests_that_come_one_after_the_other_go_round() -> None:
    chosen, found = [0, 0, 0], []
    for number in range(1, 10):
        site = least_loaded(sites(*({"chosen": c} for c in chosen))).site
        chosen[site] = number
        found.append(site)
    assert found == [0, 1, 2] * 3


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 5))
def test_no_conversation_stays_where_it_would_wait_for_long(ours: list[int], last: int) -> None:
    views = sites(*({"ours": n} for n in ours))
    chosen = least_loaded(views, last % len(views)).site
    assert ours[chosen] + 1 <= STICKS_TIMES * (min(ours) + 1) + STICKS_MORE
