"""Held: what is given back at the end, the last that was taken first."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Held:
    """Contextlib's AsyncExitStack, as far as requests need it, for half of the CPU: each request
    has two of them. None of the blocks that it holds can keep an error from going on."""

    __slots__ = ("_exits",)

    def __init__(self) -> None:
        self._exits: list[tuple[Callable[..., Any], bool]] = []  # and whether it is a block's

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        exits = self._exits
        try:
            while exits:
                leave, is_block = exits.pop()
                if is_block:
                    await leave(*error)
                else:
                    leave()
        finally:
            if exits:  # that failed: the others are given back all the same
                await self.__aexit__(*sys.exc_info())

    async def aclose(self) -> None:
        """Give all of it back now."""
        await self.__aexit__(None, None, None)

    async def enter_async_context(self, block: AbstractAsyncContextManager[T]) -> T:
        """Enter a block, which is left at the end."""
        value = await block.__aenter__()
        self._exits.append((block.__aexit__, True))
        return value

    def callback(self, call: Callable[..., object], *args: object) -> None:
        """Call it at the end."""
        self._exits.append(((lambda: call(*args)) if args else call, False))

    def push_async_callback(self, call: Callable[[], Awaitable[object]]) -> None:
        """The same, of one that may wait."""

        async def leave(*_: object) -> None:
            await call()

        self._exits.append((leave, True))

    def pop_all(self) -> Held:
        """All that it holds is for the one returned to give back."""
        other = Held()
        other._exits, self._exits = self._exits, []
        return other
