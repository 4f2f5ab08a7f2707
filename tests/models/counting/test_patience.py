"""When a file is left alone, and for how long."""

from __future__ import annotations

from pathlib import Path

from trio_gateway.models.counting.patience import BARRED_S, Patience

FILE, OTHER = Path("a.gguf"), Path("b.gguf")


def test_once_is_no_reason() -> None:
    patience = Patience()
    patience.note(FILE, 0.0)
    assert not patience.is_lost(FILE, 1.0)


def test_twice_within_the_time_is_and_concerns_no_other_file() -> None:
    patience = Patience()
    patience.note(FILE, 0.0)
    patience.note(FILE, 10.0)
    assert patience.is_lost(FILE, 11.0)
    assert not patience.is_lost(OTHER, 11.0)


def test_it_is_tried_again_after_a_while_and_has_one_try_then() -> None:
    patience = Patience()
    patience.note(FILE, 0.0)
    patience.note(FILE, 10.0)
    assert not patience.is_lost(FILE, BARRED_S)
    patience.note(FILE, BARRED_S)
    assert patience.is_lost(FILE, BARRED_S + 1)
