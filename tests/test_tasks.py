from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_gateway.tasks import beside, first_of, open_flat_nursery


async def fail(error: BaseException, after_s: float = 0.0) -> None:
    await trio.sleep(after_s)
    raise error


async def value(number: int, after_s: float) -> int:
    await trio.sleep(after_s)
    return number


async def test_the_first_that_returns_gives_the_result_and_ends_the_others(
    autojump_clock: object,
) -> None:
    begun = trio.current_time()
    assert await first_of(lambda: value(1, 60), lambda: value(2, 1), lambda: value(3, 30)) == 2
    assert trio.current_time() - begun == pytest.approx(1)


async def test_an_exception_comes_bare_and_ends_the_others(autojump_clock: object) -> None:
    begun = trio.current_time()
    with pytest.raises(KeyError, match="first"):
        await first_of(lambda: fail(KeyError("first"), 1), lambda: fail(OSError("second"), 2))
    assert trio.current_time() - begun == pytest.approx(1)


async def test_of_two_exceptions_the_first_is_raised(autojump_clock: object) -> None:
    async def fails_as_it_is_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("second")

    with pytest.raises(KeyError, match="first"):
        await first_of(fails_as_it_is_cancelled, lambda: fail(KeyError("first")))


async def test_an_exception_after_another_s_result_is_not_hidden(autojump_clock: object) -> None:
    async def fails_as_it_is_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("a bug")

    with pytest.raises(OSError, match="a bug"):
        await first_of(fails_as_it_is_cancelled, trio.lowlevel.checkpoint)


async def test_work_beside_a_block_is_cancelled_when_the_block_is_left() -> None:
    cancelled = trio.Event()

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with beside(work):
        await trio.testing.wait_all_tasks_blocked()
        assert not cancelled.is_set()
    assert cancelled.is_set()


async def test_work_that_returns_leaves_the_block_alone(autojump_clock: object) -> None:
    async with beside(trio.lowlevel.checkpoint):
        await trio.sleep(1)


async def test_work_that_raises_cancels_the_block_and_comes_bare(autojump_clock: object) -> None:
    with pytest.raises(KeyError, match="work"):
        async with beside(lambda: fail(KeyError("work"), 1)):
            await trio.sleep_forever()


async def test_what_the_block_raises_comes_bare_with_no_group_behind_it() -> None:
    with pytest.raises(KeyError, match="block") as raised:
        async with beside(trio.sleep_forever):
            raise KeyError("block")
    assert raised.value.__context__ is None


async def test_a_cancelled_block_is_cancelled(autojump_clock: object) -> None:
    with trio.move_on_after(1) as scope:
        async with beside(trio.sleep_forever):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_exception_out_of_a_nursery_within_comes_bare_too() -> None:
    with pytest.raises(KeyError, match="deep"):
        async with open_flat_nursery(), trio.open_nursery() as nursery:
            nursery.start_soon(fail, KeyError("deep"))


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_keyboard_interrupt_is_never_hidden_by_an_exception(depth: int) -> None:
    group: BaseException = BaseExceptionGroup("", [KeyError("block"), KeyboardInterrupt()])
    if depth:
        group = BaseExceptionGroup("", [OSError(), group])
    with pytest.raises(BaseExceptionGroup) as raised:
        async with open_flat_nursery():
            raise group
    assert raised.value.split(KeyboardInterrupt)[0] is not None
