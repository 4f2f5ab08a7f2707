"""How long tests wait."""

from __future__ import annotations

import time

import pytest

from tests.support import patience


def test_a_wait_ends_before_the_tests_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would end it without a word of what it waited for."""
    monkeypatch.setattr(patience, "_ends", patience._ends)
    begun = time.monotonic()
    patience.limit_begins(patience.SAYING_S + 0.2)
    assert not patience.eventually(lambda: False, within_s=60)
    assert time.monotonic() - begun < 30


def test_the_limit_of_the_test_that_runs_is_known() -> None:
    assert 0 < patience.left_s() < 3600
