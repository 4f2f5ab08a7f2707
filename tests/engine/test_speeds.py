"""How fast an engine is, as its answers tell, and when somebody is told."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from trio_gateway.engine.clients.usage import Usage
from trio_gateway.engine.speeds import TOLD_AFTER, Speeds


def answer(speed: float, tokens: int = 100) -> Usage:
    return Usage(10, tokens, made_ms=tokens / speed * 1000)


class Told(Speeds):
    """`told`: the speed at each time that it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float | None] = []
        self.tell = lambda: self.told.append(self.speed)


def test_only_a_speed_that_is_news_is_told() -> None:
    speeds = Told()
    for speed in (50, 51, 50, 49):
        speeds.note(answer(speed), None)
    assert speeds.told == [50]
    speeds.note(answer(500), None)
    assert len(speeds.told) == 2


def test_of_many_answers_one_tells_in_any_case() -> None:
    """What was learned besides is known by then as well."""
    speeds = Told()
    for _ in range(3 * TOLD_AFTER):
        speeds.note(answer(50, tokens=1), None)
    assert speeds.told == [None] * 3


async def test_without_its_engine_s_own_times_it_is_the_time_that_its_answer_took(
    autojump_clock: MockClock,
) -> None:
    speeds, begun_at = Speeds(), trio.current_time()
    await trio.sleep(2)
    speeds.note(Usage(10, 100), begun_at)
    assert speeds.speed == 50
