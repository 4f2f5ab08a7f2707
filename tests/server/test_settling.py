"""When a folder of models is looked at again."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_gateway.server.reloading import Settling

A, B = Path("/m/a.gguf"), Path("/m/b.gguf")


def stamp(size: int | None) -> tuple[int, int, int] | None:
    return None if size is None else (1, size, 1)


@pytest.mark.parametrize(
    ("sizes", "when"),
    [
        ([(1, 1), (1, 1), (1, 1), (1, 1)], []),
        ([(1, 1), (2, 1), (2, 1), (2, 1), (2, 1)], [3]),  # changed, and left alone for 2 s
        ([(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], []),  # still being loaded down
        ([(1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2)], [4]),  # it holds up no other
        ([(1, 1), (None, 1), (None, 1), (None, 1), (None, 1)], [3]),  # gone
        ([(None, 1), (1, 1), (1, 1), (1, 1)], [3]),  # there again
    ],
)
def test_a_change_is_told_once_it_was_left_alone(
    sizes: list[tuple[int | None, int | None]], when: list[int]
) -> None:
    settling = Settling()
    told = []
    for second, (a, b) in enumerate(sizes):
        if settling.have_settled({A: stamp(a), B: stamp(b)}, float(second)):
            told.append(second)
    assert told == when


def test_a_file_that_is_watched_only_now_has_not_changed() -> None:
    settling = Settling()
    assert not settling.have_settled({A: stamp(1)}, 0)
    assert [settling.have_settled({A: stamp(1), B: stamp(1)}, s) for s in (1, 4, 9)] == [False] * 3
