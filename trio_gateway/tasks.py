"""Tasks that race or help: nurseries that raise what went wrong itself, and no exception group.

A nursery wraps even a single exception into a group, as several may come at once. Where a caller
expects one named exception (an error for a client, an engine that is lost), that one is what these
raise: the first that came. What the other tasks raise as they are cancelled for it is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

T = TypeVar("T")


@asynccontextmanager
async def open_flat_nursery() -> AsyncIterator[trio.Nursery]:
    """As `trio.open_nursery`: leaving the block waits for the tasks; what fails cancels the rest.

    Raises:
        Exception: the first that the block or a task raised, bare. Groups of none but Cancelled,
            and those with a KeyboardInterrupt or the like, come as they are.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
        return
    except BaseExceptionGroup as group:
        if (first := _first_exception(group)) is None:
            raise
    raise first  # out here, where the group is not its context


@asynccontextmanager
async def beside(work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run some work in a task while the block runs. It is cancelled when the block is left.

    Work that ends early does nothing to the block; work that raises cancels it.

    Raises:
        Exception: the first that the block or the work raised, as `open_flat_nursery` does.
    """
    async with open_flat_nursery() as nursery:
        nursery.start_soon(work)
        yield
        nursery.cancel_scope.cancel(reason="the block that it helped is over")


async def run_and_finish(
    work: Callable[[trio.CancelScope], Awaitable[object]],
    close: Callable[[], None],
    within_s: float,
    task_status: trio.TaskStatus[None],
) -> None:
    """Run some work until cancelled; then `close` tells it to finish what it has, and it gets so
    long for that.

    Args:
        work: does all of it in the scope that it is given.
    """
    # Shielded: the last requests before a shutdown are those that people ask for. The deadline
    # comes with the cancel.
    limit = trio.CancelScope(shield=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, limit)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            limit.deadline = trio.current_time() + within_s
            close()


async def first_of(*waits: Callable[[], Awaitable[T]]) -> T:
    """What the first of them returns; the others are cancelled.

    Raises:
        Exception: the first that one of them raised, as `open_flat_nursery` does, whether or not
            another has returned by then.
    """
    returned: list[T] = []

    async def run(wait: Callable[[], Awaitable[T]]) -> None:
        returned.append(await wait())
        nursery.cancel_scope.cancel(reason="another ended first")

    async with open_flat_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(run, wait)
    return returned[0]


def _first_exception(group: BaseExceptionGroup[BaseException]) -> Exception | None:
    """The first exception in the group; None if no exception may be raised for all of it."""
    _, others = group.split((Exception, trio.Cancelled))
    if others is not None:
        return None
    return next((error for error in _leaves(group) if isinstance(error, Exception)), None)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
