"""KvStore: the KV caches that engines saved, as files in one folder.

It never talks to an engine. An engine writes a file under a name from `new_name`, `commit` takes it
in, and `lend` shows a later engine where to read it. An engine that restores a truncated file
aborts, and one that restores other bytes answers from them, so a file is handed out only if it is
what was saved, as far as its size, time of change and digest tell.

The files are `gateway-kv-<random>.bin` (the cache), `.json` (its KvEntry) and `.tmp` (being written
or lent); no other in this folder is ever removed. The `.json` comes last and goes first: a `.bin`
without one is what a crash left. The time of change of a `.json` is when its cache was last used.
Engines write into a folder of their own in it, `gateway-kv-slots`: of what is there, only the
store's outlives an engine, as others may have had it written.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trio_gateway.engine.kv import file as kv_file
from trio_gateway.engine.kv.file import KvEntry as KvEntry  # it is part of the store's interface
from trio_gateway.engine.kv.policy import shared_prefix

_OWN_FOLDER = "set `kv_carryover.directory` to a folder of this gateway's own"


class KvStoreUnavailable(Exception):
    """The folder, named in the message, cannot be used."""


class KvStoreInUse(KvStoreUnavailable):
    """Another gateway holds the folder."""


class KvSaveRefused(Exception):
    """A file was not taken in, and nothing of it is left."""


class KvLendRefused(Exception):
    """A cache must not or cannot be handed to an engine."""


class KvStore:
    """The entries of one folder, made by `open_store`.

    Its methods block, some for as long as a file takes to copy. One caller at a time: they may run
    in a worker thread, but never two of them at once.
    """

    def __init__(self, directory: Path, max_bytes: int, *, persist: bool) -> None:
        self.directory, self.max_bytes, self._persist = directory, max_bytes, persist
        self._entries: dict[str, KvEntry] = {}  # by name, the least recently used first
        self._ids: dict[str, array[int] | None] = {}
        self._lent: set[Path] = set()
        self._used_ns = 0
        self.swept: tuple[int, int] = (0, 0)  # as it was opened: files of no entry, and their bytes

    @property
    def slots(self) -> Path:
        """Where engines write, and read what they are lent; it exists once there is one."""
        return self.directory / kv_file.SLOTS_NAME

    def tidy_slots(self) -> None:
        """Remove from there what is none of the store's files. Unlike the other methods, at any
        time: what an engine writes for the store has a name of the store's."""
        with kv_file.logged(str(self.slots)):
            for path in self.slots.iterdir() if self.slots.exists() else ():
                if not kv_file.is_ours(path.name):
                    kv_file.remove_all(path) if path.is_dir() else kv_file.remove(path)

    @property
    def files(self) -> int:
        return len(self._entries)

    @property
    def total_bytes(self) -> int:
        """What the kept caches take; one that an engine is writing comes on top."""
        return sum(entry.size_bytes for entry in self._entries.values())

    def new_name(self) -> str:
        """A name for an engine to save under. To be given to `commit` or `discard` afterwards."""
        return kv_file.random_name(".tmp")

    def commit(
        self,
        written: Path,
        *,
        model: str,
        fingerprint: str,
        tokens: int,
        size_bytes: int,
        prompt_tokens: int | None = None,
        owner: str = "",
    ) -> KvEntry:
        """Take in a file named by `new_name`: `tokens` and `size_bytes` as the engine said.

        It may be in another folder. Entries of the same owner, model and fingerprint that it
        continues are removed, then the least recently used ones until all are within `max_bytes`.

        Raises:
            KvSaveRefused: it is not what the engine said, is larger than `max_bytes`, or could
                not be moved (a full disk).
        """
        name = kv_file.random_name(".bin")
        path = self.directory / name
        try:
            self._refuse_unfit(written, tokens, size_bytes)
            kv_file.move_private(written, path)
            entry = KvEntry(
                name=name, model=model, fingerprint=fingerprint,
                tokens=tokens, prompt_tokens=prompt_tokens, owner=owner,
                size_bytes=size_bytes, mtime_ns=path.stat().st_mtime_ns,
                digest=kv_file.digest(path), saved_at=time.time(),
            )  # fmt: skip
            if (fault := kv_file.stat_fault(path, entry)) is not None:  # it has changed since
                raise KvSaveRefused(fault)
            self._write_metadata(entry)
        except (OSError, KvSaveRefused) as error:
            self.discard(written)
            self._remove_files(name)
            raise KvSaveRefused(kv_file.reason(error)) from error
        self._remove_continued(entry)
        self._entries[name] = entry
        self._make_room()
        return entry

    def _refuse_unfit(self, written: Path, tokens: int, size_bytes: int) -> None:
        if not kv_file.is_ours(written.name, ".tmp"):
            raise KvSaveRefused(f"{written.name} is not a name that the store gave out")
        status = written.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != size_bytes or tokens < 1:
            said = f"{tokens} tokens in {size_bytes} bytes"
            raise KvSaveRefused(
                f"the engine reported {said}, but its file has {status.st_size} bytes"
            )
        if size_bytes > self.max_bytes:
            raise KvSaveRefused(
                f"{size_bytes} bytes exceed the limit of {self.max_bytes} for all files; raise "
                "kv_carryover.max_size, or give the engine fewer --ctx-checkpoints, whose copies "
                "are in the file"
            )

    def _write_metadata(self, entry: KvEntry) -> None:
        metadata, temporary, _ = self._files_of(entry.name)
        kv_file.write_private(temporary, msgspec.json.encode(entry))
        self._stamp(temporary)
        os.replace(temporary, metadata)

    def _stamp(self, path: Path) -> None:
        # By hand: the time that the kernel gives a file is too coarse to order two uses.
        self._used_ns = max(time.time_ns(), self._used_ns + 1)
        os.utime(path, ns=(self._used_ns, self._used_ns))

    def _remove_continued(self, new: KvEntry) -> None:
        if (ids := self.ids_of(new)) is None:
            return
        for old in self.candidates(new.model, new.fingerprint, new.tokens):
            old_ids = self.ids_of(old) if old.owner == new.owner else None
            if old_ids is not None and shared_prefix(old_ids, ids) == len(old_ids):
                self.remove(old)

    def _make_room(self) -> None:
        while self.total_bytes > self.max_bytes:
            self.remove(next(iter(self._entries.values())))

    def discard(self, name_or_path: str | Path) -> None:
        """Remove a file that `new_name` named, by name or path, if it exists."""
        path = self.directory / name_or_path
        if kv_file.is_ours(path.name, ".tmp"):
            kv_file.remove(path)

    def candidates(self, model: str, fingerprint: str, max_tokens: int) -> list[KvEntry]:
        """What an engine with a context of `max_tokens` could restore, most recently used first.

        Whether their files are still good is not looked at, see `check`.
        """
        alike = (entry for entry in self.also_of(model) if entry.fingerprint == fingerprint)
        return [entry for entry in alike if entry.tokens <= max_tokens]

    def also_of(self, model: str) -> list[KvEntry]:
        """All entries of the model, whatever their fingerprints; most recently used first."""
        return [entry for entry in reversed(self._entries.values()) if entry.model == model]

    def ids_of(self, entry: KvEntry) -> array[int] | None:
        """The ids of its tokens, not to be changed; None if its file does not say them."""
        if entry.name not in self._ids:
            self._ids[entry.name] = None
            with kv_file.logged(entry.name):
                path = self.directory / entry.name
                self._ids[entry.name] = kv_file.read_token_ids(path, entry.tokens)
        return self._ids[entry.name]

    def check(self, entry: KvEntry) -> str | None:
        """Why its file must not be given to an engine; None if it is as it was saved."""
        if entry.name not in self._entries:
            return "it is no longer kept"
        path = self.directory / entry.name
        try:
            return kv_file.stat_fault(path, entry) or kv_file.digest_fault(path, entry)
        except OSError as error:
            return f"its file cannot be read: {kv_file.reason(error)}"

    def lend(self, entry: KvEntry, folder: Path) -> Path:
        """The path under which an engine that restores from `folder` finds it, checked.

        In the store's own folder that is the file itself; elsewhere a hard link to it, or a copy
        on another file system, until `give_back`.

        Raises:
            KvLendRefused: its file is not as it was saved, or cannot be put there.
        """
        own, lent = self.directory / entry.name, folder / self.new_name()
        if (fault := self.check(entry)) is not None:
            raise KvLendRefused(fault)
        try:
            if folder.samefile(self.directory):
                return own
            self._lent.add(lent)
            kv_file.link_or_copy(own, lent)
            fault = kv_file.digest_fault(lent, entry)
        except OSError as error:
            fault = f"it cannot be put into {folder}: {kv_file.reason(error)}"
        if fault is not None:
            self.give_back(lent)
            raise KvLendRefused(fault)
        return lent

    def give_back(self, path: Path) -> None:
        """Remove what `lend` made; never the store's own file."""
        if path in self._lent:
            self._lent.remove(path)
            kv_file.remove(path)

    def used(self, entry: KvEntry) -> None:
        """It is now the most recently used, for the next gateway as well."""
        if self._entries.pop(entry.name, None) is not None:
            self._entries[entry.name] = entry
            with kv_file.logged(entry.name):
                self._stamp(self._files_of(entry.name)[0])

    def remove(self, entry: KvEntry) -> None:
        """Remove it and its file, which may be gone already."""
        self._entries.pop(entry.name, None)
        self._ids.pop(entry.name, None)
        self._remove_files(entry.name)

    def keep_newest(self, model: str, count: int) -> None:
        """Remove all but the `count` most recently used entries of the model."""
        for entry in self.also_of(model)[count:]:
            self.remove(entry)

    def _remove_files(self, name: str) -> None:
        for file in self._files_of(name):
            kv_file.remove(file)

    def _files_of(self, name: str) -> tuple[Path, Path, Path]:
        """Metadata, metadata being written, cache: in the order of removal."""
        path = self.directory / name
        return path.with_suffix(".json"), path.with_suffix(".tmp"), path

    def _load(self) -> None:
        """Take over what an earlier gateway kept here, and remove the rest of the store's files."""
        found = self.directory.glob("*.json") if self._persist else ()
        for metadata in sorted(found, key=lambda file: file.lstat().st_mtime_ns):
            if (entry := _read_entry(metadata)) is not None:
                self._entries[entry.name] = entry
                self._used_ns = metadata.lstat().st_mtime_ns
        self.swept = self._sweep()
        self._make_room()

    def _sweep(self) -> tuple[int, int]:
        """Remove the store's files that belong to no entry, and temporary ones. How many there
        were, and their bytes."""
        files = size = 0
        kept = {Path(name).stem for name in self._entries}
        for path in map(self.directory.joinpath, os.listdir(self.directory)):
            if kv_file.is_ours(path.name) and (path.suffix == ".tmp" or path.stem not in kept):
                with kv_file.logged(path.name):
                    size += path.lstat().st_size
                kv_file.remove(path)
                files += 1
        return files, size

    def _close(self) -> None:
        for lent in list(self._lent):
            self.give_back(lent)
        if not self._persist:
            self._entries.clear()
        with kv_file.logged(str(self.directory)):
            self._sweep()
        kv_file.remove_all(self.slots)


@contextlib.contextmanager
def open_store(directory: Path, max_bytes: int, *, persist: bool) -> Iterator[KvStore]:
    """The store in `directory`, which is made if need be; locked until the block is left.

    Args:
        max_bytes: the most that all saved caches together may take.
        persist: keep them for the next gateway; otherwise they go with this one, and what an
            earlier one left goes now.

    Raises:
        KvStoreInUse: the folder is another gateway's.
        KvStoreUnavailable: it is open to other users, or nothing can be written there.
    """
    directory = directory.absolute()  # engines have working directories of their own
    with contextlib.ExitStack() as stack:
        try:
            if (fault := kv_file.make_private_folder(directory)) is not None:
                raise KvStoreUnavailable(f"{directory} {fault}; or {_OWN_FOLDER}")
            stack.enter_context(kv_file.locked(directory))
            store = KvStore(directory, max_bytes, persist=persist)
            store._load()
            kv_file.remove_all(store.slots)
        except BlockingIOError:
            reason = f"{directory} is in use by another gateway; {_OWN_FOLDER}"
            raise KvStoreInUse(reason) from None
        except OSError as error:
            raise KvStoreUnavailable(f"{directory}: {kv_file.reason(error)}") from error
        stack.callback(store._close)
        yield store


def _read_entry(metadata: Path) -> KvEntry | None:
    """What it describes; None unless that is there, exactly so."""
    path = metadata.with_suffix(".bin")
    try:
        entry = msgspec.json.decode(metadata.read_bytes(), type=KvEntry)
        right = kv_file.is_ours(path.name) and entry.name == path.name
        return entry if right and kv_file.stat_fault(path, entry) is None else None
    except (OSError, ValueError):  # msgspec's are ValueErrors
        return None
