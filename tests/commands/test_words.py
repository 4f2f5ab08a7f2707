"""Numbers as people read them."""

from __future__ import annotations

import pytest

from trio_gateway.commands import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.042, "0.04 s"), (1.0, "1.0 s"), (9.94, "9.9 s"), (12.4, "12 s"),
        (119.4, "119 s"), (120, "2 min"), (200, "3 min 20 s"), (7199, "119 min 59 s"),
        (7200, "2 h"), (7500, "2 h 5 min"),
    ],
)  # fmt: skip
def test_seconds(value: float | None, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (24 << 30, "24.0 GiB")],
)
def test_size(value: int | None, text: str) -> None:
    assert words.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (9.87, "9.9 t/s"), (99.9, "99.9 t/s"), (1234.5, "1234 t/s")]
)
def test_speed(value: float | None, text: str) -> None:
    assert words.speed(value) == text
