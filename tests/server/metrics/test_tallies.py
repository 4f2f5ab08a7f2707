"""How values are spread over buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.server.metrics.tallies import Spread

LIMITS = (0.5, 1.0, 2.0, 10.0)


def spread(*values: float) -> Spread:
    made = Spread(LIMITS)
    made.add(values)
    return made


def test_a_bucket_includes_its_upper_end() -> None:
    assert spread(0.0, 0.5, 0.6, 1.0, 10.0).counts == [2, 2, 0, 1, 0]


def test_what_is_above_the_last_limit_has_a_bucket_of_its_own() -> None:
    assert spread(10.1, 600.0).counts == [0, 0, 0, 0, 2]


def test_nothing_changes_nothing() -> None:
    assert spread().counts == [0, 0, 0, 0, 0]


@given(st.lists(st.sampled_from([0.0, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 10.0, 11.0])))
def test_many_at_once_are_as_one_by_one(values: list[float]) -> None:
    one_by_one = Spread(LIMITS)
    for value in values:
        one_by_one.add([value])
    assert spread(*values).counts == one_by_one.counts
    assert sum(one_by_one.counts) == len(values)
    assert spread(*values).total == pytest.approx(one_by_one.total)
