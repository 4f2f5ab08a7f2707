"""Spool: bytes that are kept, in memory while they are few and in a nameless file beyond that."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from typing import BinaryIO, TypeVar

import trio

from trio_gateway.server.budget import Hold

T = TypeVar("T")

MEMORY_BYTES = 1024**2

# Files of several uploads at a time; trio's own limit is left to what else needs a thread.
_threads: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("spool_threads")
_THREADS_MAX = 8


class SpoolFull(Exception):
    """The disk took no more; the message says why."""


class Spool:
    """Append to it, read any part of it, close it.

    The file has no name (or goes with its handle), and no other user may open it. A thread reads
    and writes it, in pieces of up to 1 MiB, so that a slow disk stops this request only. One task
    at a time may use it.
    """

    def __init__(self, hold: Hold, memory_bytes: int = MEMORY_BYTES) -> None:
        """Raises NoRoom. `memory_bytes`: as many may be kept in memory before a file is used."""
        hold.take(memory_bytes)
        self.size = 0
        self._hold, self._in_memory, self._in_files = hold, memory_bytes, 0
        self._on_disk = 0
        self._memory = bytearray()  # what comes after that
        self._file: BinaryIO | None = None

    async def append(self, data: bytes) -> None:
        """Raises SpoolFull, and NoRoom: it is kept, but nothing more may be appended."""
        self._memory += data
        self.size += len(data)
        if len(self._memory) > MEMORY_BYTES:
            await self._write_out()

    async def _write_out(self) -> None:
        size = len(self._memory)
        self._hold.take_file(size)
        # Not abandoned when cancelled: the thread ends first, and what it wrote is known.
        try:
            await _in_thread(partial(self._write, bytes(self._memory)))
        except BaseException as error:
            self._hold.give_file(size)
            if not isinstance(error, OSError):
                raise
            raise SpoolFull(f"{_folder()}: {error.strerror or error}") from None
        self._in_files += size
        self._on_disk += size
        self._memory.clear()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - `close` closes it
                buffering=0, prefix="trio-gateway-", dir=_folder()
            )
        self._file.seek(self._on_disk)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    async def read(self, offset: int, max_bytes: int) -> bytes:
        """Some of what follows this offset; `b""` at the end. Raises OSError."""
        if offset < self._on_disk:
            count = min(max_bytes, self._on_disk - offset)
            return await _in_thread(partial(self._read, offset, count))
        begin = offset - self._on_disk
        return bytes(self._memory[begin : begin + max_bytes])

    def _read(self, offset: int, count: int) -> bytes:
        assert self._file is not None
        self._file.seek(offset)
        data = self._file.read(count)
        if not data:
            raise OSError(f"{_folder()}: a temporary file was cut off")
        return data

    def close(self) -> None:
        """Forget everything."""
        self._memory.clear()
        self._hold.give(self._in_memory)
        self._hold.give_file(self._in_files)
        self._in_memory = self._in_files = 0
        if self._file is not None:
            self._file.close()


async def _in_thread(work: partial[T]) -> T:
    try:
        limiter = _threads.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS_MAX)
        _threads.set(limiter)
    return await trio.to_thread.run_sync(work, limiter=limiter)


def _folder() -> str | None:
    """Not /tmp if that can be helped: it is memory on many machines, and these files are large."""
    if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    return None
