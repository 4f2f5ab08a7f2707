"""LedgerFile: the entries of all gateways of a user, in one JSON file. It blocks; nothing is kept.

    {"version": 1, "entries": {"<identity>": {"at": 1764000000.0, "load_s": 3.1, …}, …}}

A write reads what is there and changes its own entries only, under a lock, so that gateways that
run side by side keep each other's. What cannot be read is moved aside, and a new file begun.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

from trio_gateway.engine.ledger.entry import Entry

log = logging.getLogger(__name__)

VERSION = 1
ENTRIES_MAX = 512  # those that were measured last stay
SIZE_MAX = 4 * 2**20  # bytes; 512 entries have 300 KiB
LOCK_S = 2.0  # for another gateway that writes
_LOCK_STEP_S = 0.02


class LedgerUnavailable(Exception):
    """It cannot be read or written; the message says why."""


class _Unreadable(Exception):
    """What is there is none of ours. `end`: of the name that it gets."""

    def __init__(self, why: str, end: str = "damaged") -> None:
        super().__init__(why)
        self.end = end


class _Version(msgspec.Struct):
    version: Annotated[int, msgspec.Meta(ge=1)]


class _Stored(msgspec.Struct):
    version: int
    entries: dict[str, msgspec.Raw]


def own_ledger() -> LedgerFile | None:
    """In the user's own folder for what programs have learned; None: there is no such folder."""
    path = platformdirs.user_state_path("trio-gateway", appauthor=False) / "ledger.json"
    return LedgerFile(path) if path.is_absolute() else None  # no home: "~" stands for itself


class LedgerFile:
    """Its methods raise LedgerUnavailable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Entry]:
        """By identity; nothing where there is no file, or none of ours."""
        try:
            return self._read()
        except _Unreadable:
            return {}
        except OSError as error:
            raise LedgerUnavailable(_words(error)) from None

    def open(self) -> dict[str, Entry]:
        """The same, for who will write; what is none of ours is moved aside at once."""
        try:
            return self._read()
        except _Unreadable:
            self.update(lambda _: {})
            return {}
        except OSError as error:
            raise LedgerUnavailable(_words(error)) from None

    def update(self, change: Callable[[Mapping[str, Entry]], Mapping[str, Entry]]) -> None:
        """Write what the function makes of the entries that are there: those that change."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                try:
                    entries = self._read()
                except _Unreadable as error:
                    self._move_aside(error)
                    entries = {}
                if changed := change(entries):
                    self._write({**entries, **changed})
        except OSError as error:
            raise LedgerUnavailable(_words(error)) from None

    def _read(self) -> dict[str, Entry]:
        """Raises OSError, _Unreadable."""
        try:
            # Not blocked by a pipe that somebody has put there.
            opened = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return {}
        try:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                raise _Unreadable("it is not a file")
            with open(opened, "rb", closefd=False) as file:
                data = file.read(SIZE_MAX + 1)
        finally:
            os.close(opened)
        if len(data) > SIZE_MAX:
            raise _Unreadable(f"it has more than {SIZE_MAX} bytes")
        try:
            version = msgspec.json.decode(data, type=_Version).version
            if version > VERSION:
                why = f"a newer trio-gateway has written it (version {version})"
                raise _Unreadable(why, f"v{version}")
            stored = msgspec.json.decode(data, type=_Stored).entries
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _Unreadable(f"it is damaged ({error})") from None
        found = {}
        for identity, raw in stored.items():
            with contextlib.suppress(msgspec.MsgspecError, RecursionError):
                found[identity] = msgspec.json.decode(raw, type=Entry)
        return found

    def _write(self, entries: Mapping[str, Entry]) -> None:
        newest = sorted(entries.items(), key=lambda item: item[1].at, reverse=True)[:ENTRIES_MAX]
        data = msgspec.json.encode({"version": VERSION, "entries": dict(newest)})
        new = self.path.with_name(f"{self.path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()  # what a crash left, or a link of somebody's
        opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(opened, "wb") as file:
                file.write(msgspec.json.format(data, indent=1))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        self._sync_folder()

    def _sync_folder(self) -> None:
        """So that the new name outlives a power cut; not every system can."""
        with contextlib.suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _move_aside(self, why: _Unreadable) -> None:
        aside = self.path.with_name(f"{self.path.name}.{why.end}")
        os.replace(self.path, aside)
        log.warning(
            "what was measured in earlier runs is not used: %s, %s; it is %s now, and a new one "
            "is begun",
            self.path, why, aside.name,
        )  # fmt: skip

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Raises OSError: somebody else has it for long."""
        import fcntl

        lock = self.path.with_name(f"{self.path.name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        opened = os.open(lock, flags, 0o600)
        try:
            until = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise OSError(errno.EBUSY, "another gateway holds its lock") from None
                    time.sleep(_LOCK_STEP_S)  # in a thread: what blocks is abandoned at the end
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):
                        raise
                    break  # a file system without locks: the rename alone has to do
            yield
        finally:
            os.close(opened)


def _words(error: OSError) -> str:
    return error.strerror or repr(error)
