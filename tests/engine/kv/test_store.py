"""The store of saved KV caches: nothing is handed out that is not what was saved, nothing leaks."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kv_store import MIB, cache_of, caches, kept, save
from trio_gateway.engine.kv import file as kv_file
from trio_gateway.engine.kv.store import (
    KvEntry,
    KvLendRefused,
    KvSaveRefused,
    KvStore,
    KvStoreUnavailable,
    open_store,
)

GONE = "No such file or directory"
posix = pytest.mark.skipif(os.name == "nt", reason="Windows knows no permission bits")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow: what a full disk does, for one process, whoever runs it."""
    if sys.platform == "win32":
        pytest.skip("no such limit")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kv"


@pytest.fixture
def store(folder: Path) -> Iterator[KvStore]:
    with open_store(folder, MIB, persist=False) as opened:
        yield opened


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another folder of the same file system, as a user's --slot-save-path."""
    path = tmp_path / "slots"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(params=["real", "pretended"])
def far_away(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder on another file system; a pretended one where there is none."""
    shared = Path("/dev/shm")
    if request.param == "real":
        if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("no second file system")
        with tempfile.TemporaryDirectory(dir=shared) as made:
            yield Path(made)
        return

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "far"
    path.mkdir(mode=0o700)
    yield path


# -- the folder -----------------------------------------------------------------------------


@posix
def test_a_folder_and_its_parents_are_made_for_nobody_else(tmp_path: Path) -> None:
    with open_store(tmp_path / "a" / "b", MIB, persist=False):
        assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
        assert mode(tmp_path / "a" / "b" / kv_file.LOCK_NAME) == 0o600


@posix
@pytest.mark.parametrize("bits", [0o755, 0o750, 0o711])
def test_an_open_folder_without_foreign_files_is_closed_to_others(folder: Path, bits: int) -> None:
    folder.mkdir()
    folder.chmod(bits)
    (folder / kv_file.random_name(".bin")).touch()
    with open_store(folder, MIB, persist=False):
        assert mode(folder) == 0o700


@posix
def test_an_open_folder_with_foreign_files_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "notes.txt").touch()
    with (
        pytest.raises(KvStoreUnavailable, match=f"chmod 700 {folder}.*kv_carryover.directory"),
        open_store(folder, MIB, persist=False),
    ):
        pass
    assert (mode(folder), caches(folder)) == (0o755, [folder / "notes.txt"])


@posix
def test_a_folder_that_is_meant_to_be_shared_is_left_as_it_is(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o1777)
    with (
        pytest.raises(KvStoreUnavailable, match="open to other users"),
        open_store(folder, MIB, persist=False),
    ):
        pass
    assert mode(folder) == 0o1777


@posix
def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with (
        pytest.raises(KvStoreUnavailable, match="belongs to another user"),
        open_store(folder, MIB, persist=False),
    ):
        pass


def test_a_folder_that_others_cannot_enter_may_have_foreign_files(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "notes.txt").touch()
    with open_store(folder, MIB, persist=False) as store:
        assert store.files == 0


@pytest.mark.parametrize("below", [".", "kv"])
def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / below
    with pytest.raises(KvStoreUnavailable, match="file"), open_store(folder, MIB, persist=True):
        pass


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_refused_with_the_reason(
    folder: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(kv_file, "write_private", refuse)
    with (
        pytest.raises(KvStoreUnavailable, match=f"kv: {os.strerror(error)}"),
        open_store(folder, MIB, persist=False),
    ):
        pass


def test_a_full_disk_is_noticed_at_once(folder: Path) -> None:
    with pytest.raises(KvStoreUnavailable), full_disk(), open_store(folder, MIB, persist=False):
        pass
    assert caches(folder) == []


@posix
def test_a_folder_is_for_one_gateway_at_a_time(folder: Path) -> None:
    with open_store(folder, MIB, persist=True) as store:
        entry = save(store, 1, 2, 3)
        with (
            pytest.raises(KvStoreUnavailable, match=f"{folder} is in use.*kv_carryover.directory"),
            open_store(folder, MIB, persist=False),
        ):
            pass
        assert store.check(entry) is None
    with open_store(folder, MIB, persist=True) as store:
        assert kept(store) == [entry]


def test_a_folder_is_free_again_when_its_gateway_failed(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_store(folder, MIB, persist=False):
        raise ZeroDivisionError
    with open_store(folder, MIB, persist=False):
        pass


def test_it_works_where_there_are_no_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with open_store(folder, MIB, persist=False) as store:
        assert store.check(save(store, 1, 2, 3)) is None


def test_an_engine_finds_the_folder_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store(Path("kv"), MIB, persist=False) as store:
        assert store.directory == tmp_path / "kv"


def test_a_file_that_is_too_large_is_refused_with_both_knobs(folder: Path) -> None:
    with open_store(folder, 999, persist=False) as store:
        with pytest.raises(KvSaveRefused, match=r"1000 bytes exceed.*max_size.*--ctx-checkpoints"):
            save(store, 1, 2, 3)
        assert caches(folder) == []


# -- what stays and what goes ---------------------------------------------------------------


def test_without_persist_nothing_is_left(folder: Path) -> None:
    with open_store(folder, MIB, persist=False) as store:
        save(store, 1, 2, 3)
        (folder / store.new_name()).write_bytes(b"an engine is writing this")
    assert caches(folder) == []


def test_without_persist_nothing_of_an_earlier_gateway_is_kept(folder: Path) -> None:
    with open_store(folder, MIB, persist=True) as store:
        save(store, 1, 2, 3)
    with open_store(folder, MIB, persist=False) as store:
        assert (kept(store), caches(folder)) == ([], [])


def test_with_persist_the_next_gateway_has_the_same_entries(folder: Path) -> None:
    with open_store(folder, MIB, persist=True) as store:
        entries = [save(store, 1, 2, 3), save(store, 4, 5, fingerprint="g")]
        (folder / store.new_name()).write_bytes(b"an engine is writing this")
    with open_store(folder, MIB, persist=True) as store:
        assert kept(store) == entries[::-1]
        assert [store.check(entry) for entry in entries] == [None, None]
        assert list(store.ids_of(entries[0]) or ()) == [1, 2, 3]
        assert (store.files, store.total_bytes, store.max_bytes) == (2, 2000, MIB)
        assert len(caches(folder)) == 4


def test_with_persist_the_order_of_use_is_kept(folder: Path) -> None:
    with open_store(folder, MIB, persist=True) as store:
        first, second, third = save(store, 1), save(store, 2), save(store, 3)
        store.used(second)
        store.used(first)
    with open_store(folder, MIB, persist=True) as store:
        assert kept(store) == [first, second, third]
        store.used(third)
        assert kept(store) == [third, first, second]


def test_with_persist_a_smaller_limit_holds_at_once(folder: Path) -> None:
    with open_store(folder, MIB, persist=True) as store:
        save(store, 1)
        second = save(store, 2)
    with open_store(folder, 1999, persist=True) as store:
        assert kept(store) == [second]
        assert len(caches(folder)) == 2


def damage_size(cache: Path, metadata: Path) -> None:
    os.truncate(cache, 999)


def damage_time(cache: Path, metadata: Path) -> None:
    os.utime(cache)


def lose_cache(cache: Path, metadata: Path) -> None:
    cache.unlink()


def lose_metadata(cache: Path, metadata: Path) -> None:
    """What a crash between the two renames leaves."""
    metadata.unlink()


def damage_metadata(cache: Path, metadata: Path) -> None:
    os.truncate(metadata, 20)


def blank_metadata(cache: Path, metadata: Path) -> None:
    metadata.write_bytes(b"{}")


def older_metadata(cache: Path, metadata: Path) -> None:
    metadata.write_bytes(metadata.read_bytes().replace(b"gateway-kv-1", b"gateway-kv-0"))


def swap_name(cache: Path, metadata: Path) -> None:
    name = kv_file.random_name("")
    cache.rename(cache.with_name(name + ".bin"))
    metadata.rename(metadata.with_name(name + ".json"))


@pytest.mark.parametrize(
    "damage",
    [
        damage_size,
        damage_time,
        lose_cache,
        lose_metadata,
        damage_metadata,
        blank_metadata,
        older_metadata,
        swap_name,
    ],
)
def test_with_persist_what_is_not_exactly_right_is_removed(folder: Path, damage: object) -> None:
    assert callable(damage)
    with open_store(folder, MIB, persist=True) as store:
        bad, good = save(store, 1, 2, 3), save(store, 4)
    cache = folder / bad.name
    damage(cache, cache.with_suffix(".json"))
    with open_store(folder, MIB, persist=True) as store:
        assert kept(store) == [good]
        assert len(caches(folder)) == 2


@pytest.mark.parametrize("persist", [True, False])
def test_files_of_others_stay(folder: Path, persist: bool) -> None:
    folder.mkdir(mode=0o700)
    names = ["a.bin", "gateway-kv-notes.json", "gateway-kv-notes.bin", "x.tmp", "gateway-kv.txt"]
    for name in names:
        (folder / name).write_bytes(b"theirs")
    (folder / "models").mkdir()
    for _ in range(2):
        with open_store(folder, MIB, persist=persist) as store:
            for name in names:
                store.discard(name)
    assert [path.name for path in caches(folder)] == sorted([*names, "models"])


def test_where_engines_write_only_the_store_s_files_outlive_an_engine(folder: Path) -> None:
    with open_store(folder, MIB, persist=True) as store:
        entry = save(store, 1, 2, 3)
        store.tidy_slots()  # no engine has been started yet
        store.slots.mkdir()
        lent = store.lend(entry, store.slots)
        (store.slots / "stolen.bin").write_bytes(b"a conversation")
        (store.slots / "folder").mkdir()
        (store.slots / "folder" / "x").write_bytes(b"")
        (store.slots / "link").symlink_to(folder)
        store.tidy_slots()
        assert [*store.slots.iterdir()] == [lent]
        assert kept(store) == [entry]
        (store.slots / "later.bin").write_bytes(b"")
    assert not store.slots.exists()
    store.slots.mkdir()
    (store.slots / "of-a-killed-one.bin").write_bytes(b"")
    with open_store(folder, MIB, persist=True) as store:
        assert not store.slots.exists()
        assert kept(store) == [entry]


def test_what_cannot_be_removed_is_logged_and_left(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn = folder / kv_file.random_name(".tmp")
    stubborn.mkdir(parents=True)
    with open_store(folder, MIB, persist=True) as store:
        assert store.files == 0
    assert stubborn.name in caplog.text


# -- saving ---------------------------------------------------------------------------------


@posix
def test_what_an_engine_saved_is_closed_to_others(store: KvStore) -> None:
    entry = save(store, 1, 2, 3)
    cache = store.directory / entry.name
    assert mode(cache) == mode(cache.with_suffix(".json")) == 0o600
    assert len(caches(store.directory)) == 2


def test_an_entry_says_what_was_saved(store: KvStore) -> None:
    entry = save(store, 5, 6, 7, model="qwen", fingerprint="abc", size=2000)
    assert (entry.model, entry.fingerprint) == ("qwen", "abc")
    assert (entry.tokens, entry.size_bytes) == (3, 2000)
    assert list(store.ids_of(entry) or ()) == [5, 6, 7]
    assert store.check(entry) is None


@pytest.mark.parametrize(("tokens", "size_bytes"), [(3, 999), (3, 1001), (0, 1000)])
def test_a_file_that_is_not_what_the_engine_said_is_refused(
    store: KvStore, tokens: int, size_bytes: int
) -> None:
    written = store.directory / store.new_name()
    written.write_bytes(cache_of([1, 2, 3]))
    with pytest.raises(KvSaveRefused, match="1000"):
        store.commit(written, model="m", fingerprint="f", tokens=tokens, size_bytes=size_bytes)
    assert (store.files, caches(store.directory)) == (0, [])


def test_a_file_that_the_engine_did_not_write_is_refused(store: KvStore) -> None:
    written = store.directory / store.new_name()
    with pytest.raises(KvSaveRefused, match=GONE):
        store.commit(written, model="m", fingerprint="f", tokens=3, size_bytes=1000)


def test_a_link_to_another_file_is_refused(store: KvStore, tmp_path: Path) -> None:
    target, written = tmp_path / "theirs", store.directory / store.new_name()
    target.write_bytes(bytes(1000))
    written.symlink_to(target)
    size = written.lstat().st_size
    with pytest.raises(KvSaveRefused):
        store.commit(written, model="m", fingerprint="f", tokens=3, size_bytes=size)
    assert (target.stat().st_size, caches(store.directory)) == (1000, [])


def test_a_file_under_another_name_is_refused_and_left(store: KvStore, elsewhere: Path) -> None:
    theirs = elsewhere / "a.bin"
    theirs.write_bytes(bytes(1000))
    with pytest.raises(KvSaveRefused, match=r"a\.bin"):
        store.commit(theirs, model="m", fingerprint="f", tokens=3, size_bytes=1000)
    assert theirs.exists()


def test_a_file_larger_than_all_may_be_is_refused(store: KvStore) -> None:
    small = save(store, 1)
    with pytest.raises(KvSaveRefused, match=str(MIB)):
        save(store, 2, size=MIB + 1)
    assert kept(store) == [small]
    assert len(caches(store.directory)) == 2


def test_a_full_disk_costs_the_save_and_nothing_else(store: KvStore) -> None:
    first = save(store, 1)
    written = store.directory / store.new_name()
    written.write_bytes(cache_of([2]))
    with pytest.raises(KvSaveRefused, match=os.strerror(errno.EFBIG)), full_disk():
        store.commit(written, model="m", fingerprint="f", tokens=1, size_bytes=1000)
    assert kept(store) == [first]
    assert len(caches(store.directory)) == 2


def test_a_disk_that_fills_up_while_a_file_is_moved_costs_the_save(
    store: KvStore, far_away: Path
) -> None:
    written = far_away / store.new_name()
    written.write_bytes(cache_of([2]))
    with pytest.raises(KvSaveRefused), full_disk():
        store.commit(written, model="m", fingerprint="f", tokens=1, size_bytes=1000)
    assert caches(store.directory) == caches(far_away) == []


def test_a_rename_of_the_metadata_that_fails_leaves_nothing(
    store: KvStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(KvSaveRefused, match="broken"):
        save(store, 1)
    assert (store.files, caches(store.directory)) == (0, [])


def test_a_file_that_grows_while_it_is_taken_in_is_refused(
    store: KvStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move_and_grow(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes() + b"more")

    monkeypatch.setattr(kv_file, "move_private", move_and_grow)
    with pytest.raises(KvSaveRefused, match="1004 bytes instead of 1000"):
        save(store, 1)
    assert (store.files, caches(store.directory)) == (0, [])


def test_a_folder_that_vanished_costs_the_save(store: KvStore, elsewhere: Path) -> None:
    shutil.rmtree(store.directory)
    with pytest.raises(KvSaveRefused, match=GONE):
        save(store, 1, folder=elsewhere)
    assert caches(elsewhere) == []


def test_a_save_in_another_folder_is_moved(store: KvStore, elsewhere: Path) -> None:
    entry = save(store, 1, 2, 3, folder=elsewhere)
    assert store.check(entry) is None
    assert caches(elsewhere) == []


def test_a_save_on_another_file_system_is_moved(store: KvStore, far_away: Path) -> None:
    entry = save(store, 1, 2, 3, folder=far_away)
    assert store.check(entry) is None
    assert list(store.ids_of(entry) or ()) == [1, 2, 3]
    assert caches(far_away) == []
    if os.name != "nt":
        assert mode(store.directory / entry.name) == 0o600


def test_an_engine_that_gave_up_leaves_no_file(store: KvStore, elsewhere: Path) -> None:
    name = store.new_name()
    (store.directory / name).touch()
    (elsewhere / name).touch()
    store.discard(name)
    store.discard(elsewhere / name)
    store.discard(name)
    assert caches(store.directory) == caches(elsewhere) == []


# -- which are kept -------------------------------------------------------------------------


def test_a_conversation_that_went_on_replaces_its_beginning(store: KvStore) -> None:
    save(store, 1, 2)
    longer = save(store, 1, 2, 3)
    again = save(store, 1, 2, 3)
    assert kept(store) == [again]
    assert longer.name not in {path.name for path in caches(store.directory)}


@pytest.mark.parametrize(
    ("ids", "fingerprint", "model"),
    [([1, 9], "f", "m"), ([1, 2, 3, 4], "f", "m"), ([1, 2], "g", "m"), ([1, 2], "f", "n")],
)
def test_whatever_is_not_its_beginning_stays(
    store: KvStore, ids: list[int], fingerprint: str, model: str
) -> None:
    other = save(store, *ids, fingerprint=fingerprint, model=model)
    save(store, 1, 2, 3)
    assert other in kept(store, model)


def test_files_of_an_unknown_layout_replace_nothing(store: KvStore) -> None:
    for _ in range(2):
        written = store.directory / store.new_name()
        written.write_bytes(bytes(1000))
        entry = store.commit(written, model="m", fingerprint="f", tokens=3, size_bytes=1000)
        assert store.ids_of(entry) is None
    assert store.files == 2


def test_the_least_recently_used_goes_first(folder: Path) -> None:
    with open_store(folder, 3000, persist=False) as store:
        first, second, third = save(store, 1), save(store, 2), save(store, 3)
        store.used(first)
        fourth = save(store, 4)
        assert kept(store) == [fourth, first, third]
        assert store.check(second) == "it is no longer kept"
        large = save(store, 5, size=2500)
        assert (kept(store), store.total_bytes) == ([large], 2500)
        assert len(caches(folder)) == 2


def test_a_model_keeps_its_newest(store: KvStore) -> None:
    other = save(store, 1, model="n")
    first, second, third = save(store, 1), save(store, 2, fingerprint="g"), save(store, 3)
    store.used(first)
    store.keep_newest("m", 2)
    assert kept(store) == [first, third]
    assert store.check(second) is not None
    store.keep_newest("m", 5)
    store.keep_newest("m", 0)
    assert (kept(store), kept(store, "n")) == ([], [other])


def test_an_entry_can_be_removed_twice(store: KvStore) -> None:
    entry = save(store, 1)
    store.remove(entry)
    store.remove(entry)
    store.used(entry)
    assert (store.files, store.total_bytes, caches(store.directory)) == (0, 0, [])


def test_a_use_that_cannot_be_written_down_is_logged(
    store: KvStore, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = save(store, 1), save(store, 2)
    (store.directory / first.name).with_suffix(".json").unlink()
    with caplog.at_level(logging.WARNING):
        store.used(first)
    assert kept(store) == [first, second]
    assert first.name in caplog.text


# -- finding and checking -------------------------------------------------------------------


def test_candidates_are_of_the_model_and_fingerprint_and_fit_the_context(store: KvStore) -> None:
    short, long = save(store, 1), save(store, 2, 3, 4)
    other = save(store, 5, fingerprint="g")
    save(store, 6, model="n")
    assert store.candidates("m", "f", 3) == [long, short]
    assert store.candidates("m", "f", 2) == [short]
    assert store.candidates("m", "g", 9) == [other]
    assert store.candidates("n", "g", 9) == []
    assert store.also_of("m") == [other, long, short]


def test_the_ids_are_read_once(store: KvStore) -> None:
    entry = save(store, 1, 2)
    ids = store.ids_of(entry)
    (store.directory / entry.name).unlink()
    assert store.ids_of(entry) is ids


def test_the_ids_of_a_file_that_is_gone_are_unknown(folder: Path) -> None:
    with open_store(folder, MIB, persist=True) as store:
        save(store, 1, 2)
    with open_store(folder, MIB, persist=True) as store:
        (entry,) = kept(store)
        (folder / entry.name).unlink()
        assert store.ids_of(entry) is None


def restore_time(path: Path, entry: KvEntry) -> None:
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))


def test_a_truncated_file_is_noticed(store: KvStore) -> None:
    entry = save(store, 1, 2, 3)
    os.truncate(store.directory / entry.name, 600)
    assert store.check(entry) == "its file has 600 bytes instead of 1000"


def test_a_file_that_is_gone_is_noticed(store: KvStore) -> None:
    entry = save(store, 1, 2, 3)
    (store.directory / entry.name).unlink()
    assert store.check(entry) == f"its file cannot be read: {GONE}"


def test_a_file_that_was_written_to_is_noticed(store: KvStore) -> None:
    entry = save(store, 1, 2, 3)
    path = store.directory / entry.name
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns + 1))
    if path.stat().st_mtime_ns == entry.mtime_ns:
        pytest.skip("the file system's clock is too coarse")
    assert store.check(entry) == "its file was written to after it was saved"


def test_another_models_file_under_the_right_name_is_noticed(store: KvStore) -> None:
    entry, other = save(store, 1, 2, 3), save(store, 1, 2, 3, model="n")
    os.replace(store.directory / other.name, store.directory / entry.name)
    restore_time(store.directory / entry.name, entry)
    assert store.check(entry) == "its file's bytes are not those that were saved"


def test_a_link_in_the_place_of_a_file_is_noticed(store: KvStore, tmp_path: Path) -> None:
    entry = save(store, 1, 2, 3)
    path = store.directory / entry.name
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert "replaced" in (store.check(entry) or "")


# -- lending --------------------------------------------------------------------------------


def test_an_engine_of_the_stores_folder_reads_the_file_itself(store: KvStore) -> None:
    entry = save(store, 1, 2, 3)
    lent = store.lend(entry, store.directory / ".")
    assert lent == store.directory / entry.name
    store.give_back(lent)
    assert store.check(entry) is None


def test_an_engine_of_another_folder_gets_a_link(store: KvStore, elsewhere: Path) -> None:
    entry = save(store, 1, 2, 3)
    lent = store.lend(entry, elsewhere)
    assert lent.samefile(store.directory / entry.name)
    assert caches(elsewhere) == [lent]
    store.give_back(lent)
    store.give_back(lent)
    assert caches(elsewhere) == []
    assert store.check(entry) is None


def test_an_engine_of_another_file_system_gets_a_copy(store: KvStore, far_away: Path) -> None:
    entry = save(store, 1, 2, 3)
    lent = store.lend(entry, far_away)
    assert lent.read_bytes() == (store.directory / entry.name).read_bytes()
    assert not lent.samefile(store.directory / entry.name)
    if os.name != "nt":
        assert mode(lent) == 0o600
    store.give_back(lent)
    assert caches(far_away) == []


def test_a_damaged_file_is_not_lent(store: KvStore, elsewhere: Path) -> None:
    entry = save(store, 1, 2, 3)
    os.truncate(store.directory / entry.name, 600)
    for folder in (store.directory, elsewhere):
        with pytest.raises(KvLendRefused, match="600 bytes"):
            store.lend(entry, folder)
    assert caches(elsewhere) == []


def test_a_copy_that_is_not_the_same_is_not_lent(
    store: KvStore, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = save(store, 1, 2, 3)
    monkeypatch.setattr(
        kv_file, "link_or_copy", lambda source, target: target.write_bytes(b"half of it")
    )
    with pytest.raises(KvLendRefused, match="not those that were saved"):
        store.lend(entry, elsewhere)
    assert caches(elsewhere) == []


def test_a_disk_without_room_for_the_copy_gets_none(store: KvStore, far_away: Path) -> None:
    entry = save(store, 1, 2, 3, folder=far_away)
    with pytest.raises(KvLendRefused, match=os.strerror(errno.EFBIG)), full_disk():
        store.lend(entry, far_away)
    assert caches(far_away) == []


def test_a_folder_that_is_gone_gets_nothing(store: KvStore, tmp_path: Path) -> None:
    with pytest.raises(KvLendRefused, match=GONE):
        store.lend(save(store, 1), tmp_path / "none")


@pytest.mark.parametrize("persist", [True, False])
def test_what_was_not_given_back_goes_with_the_gateway(
    folder: Path, elsewhere: Path, persist: bool
) -> None:
    with open_store(folder, MIB, persist=persist) as store:
        store.lend(save(store, 1), elsewhere)
    assert caches(elsewhere) == []
