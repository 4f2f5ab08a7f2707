"""Held gives back what was taken, the last first, however the block ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_gateway.held import Held


@asynccontextmanager
async def noted(log: list[str], name: str) -> AsyncIterator[str]:
    """A block that notes how it is left."""
    try:
        yield name
    except BaseException as error:
        log.append(f"{name}: {type(error).__name__}")
        raise
    log.append(name)


async def filled(held: Held, log: list[str]) -> None:
    assert await held.enter_async_context(noted(log, "block")) == "block"
    held.callback(log.append, "call")

    async def wait() -> None:
        await trio.lowlevel.checkpoint()
        log.append("wait")

    held.push_async_callback(wait)


async def test_the_last_is_given_back_first() -> None:
    log: list[str] = []
    async with Held() as held:
        await filled(held, log)
        assert log == []
    assert log == ["wait", "call", "block"]


async def test_blocks_see_the_error_that_ends_them_and_it_goes_on() -> None:
    log: list[str] = []

    async def use() -> None:
        async with Held() as held:
            await filled(held, log)
            raise ValueError("ended")

    with pytest.raises(ValueError, match="ended"):
        await use()
    assert log == ["wait", "call", "block: ValueError"]


async def test_what_cannot_be_given_back_keeps_nothing_else() -> None:
    log: list[str] = []

    def fail() -> None:
        raise KeyError("broken")

    async def use() -> None:
        async with Held() as held:
            await filled(held, log)
            held.callback(fail)
            held.callback(log.append, "before")

    with pytest.raises(KeyError, match="broken"):
        await use()
    assert log == ["before", "wait", "call", "block: KeyError"]


async def test_a_cancelled_wait_keeps_nothing_else() -> None:
    log: list[str] = []
    with trio.CancelScope() as scope:
        async with Held() as held:
            await filled(held, log)
            scope.cancel(reason="the test wants it")
    assert log == ["call", "block: Cancelled"]


async def test_a_block_that_cannot_be_entered_is_not_left() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        async with await trio.open_file("/there/is/no/such/file"):
            yield

    async def use() -> None:
        async with Held() as held:
            held.callback(log.append, "call")
            await held.enter_async_context(broken())

    with pytest.raises(OSError, match="No such file"):
        await use()
    assert log == ["call"]


async def test_another_may_give_it_back_and_once_only() -> None:
    log: list[str] = []
    async with Held() as held:
        await filled(held, log)
        other = held.pop_all()
    assert log == []
    await other.aclose()
    await other.aclose()
    assert log == ["wait", "call", "block"]
