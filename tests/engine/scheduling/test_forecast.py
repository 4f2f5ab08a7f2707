"""What loads and requests are expected to take."""

from __future__ import annotations

import pytest

from tests.support.scheduler_tables import variant
from trio_gateway.engine.scheduling.forecast import FIRST_LEASE_S, Forecast

SMALL, LARGE = variant("a:small", load_time_s=7), variant("a:large", load_time_s=9)


def test_before_the_first_load_the_configurations_guess_holds() -> None:
    assert Forecast().load_s(SMALL) == 7


def test_the_first_load_replaces_the_guess() -> None:
    subject = Forecast()
    subject.load_took(SMALL.key, 3)
    assert subject.load_s(SMALL) == 3


def test_each_variant_has_its_own_load_time() -> None:
    subject = Forecast()
    subject.load_took(SMALL.key, 3)
    assert subject.load_s(LARGE) == 9


def test_later_loads_move_the_mean_by_three_tenths_of_the_difference() -> None:
    subject = Forecast()
    for seconds in (10, 20, 3):
        subject.load_took(SMALL.key, seconds)
    assert subject.load_s(SMALL) == pytest.approx(10 * 0.7 * 0.7 + 20 * 0.3 * 0.7 + 3 * 0.3)


def test_before_the_first_lease_a_guess_holds() -> None:
    assert Forecast().lease_s("a") == FIRST_LEASE_S


def test_leases_are_known_by_model() -> None:
    subject = Forecast()
    subject.lease_took("a", 4)
    subject.lease_took("a", 6)
    assert subject.lease_s("a") == pytest.approx(4.6)
    assert subject.lease_s("b") == FIRST_LEASE_S


def test_reading_is_expected_to_take_what_its_bytes_took_the_newest_most() -> None:
    subject = Forecast()
    assert subject.reading_s("a", 1000) is None
    subject.reading_took("a", 1000, 2)
    assert subject.reading_s("a", 500) == pytest.approx(1)
    for _ in range(20):
        subject.reading_took("a", 1000, 4)
    assert subject.reading_s("a", 1000) == pytest.approx(4, rel=0.01)
