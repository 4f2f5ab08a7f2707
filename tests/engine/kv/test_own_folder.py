"""Several gateways of one user: each has a folder of its own for saved KV caches."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.support.kv_store import MIB, caches, kept, save
from trio_gateway.engine.kv import own_folder
from trio_gateway.engine.kv.own_folder import open_own_store
from trio_gateway.engine.kv.store import KvStoreUnavailable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kv"


def test_the_second_gateway_gets_a_neighbour_and_one_line_says_which(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with (
        open_own_store(folder, MIB, persist=False) as first,
        open_own_store(folder, MIB, persist=False) as second,
        open_own_store(folder, MIB, persist=False) as third,
    ):
        folders = [store.directory for store in (first, second, third)]
        assert folders == [folder, folder.with_name("kv-2"), folder.with_name("kv-3")]
        assert all(path.stat().st_mode & 0o777 == 0o700 for path in folders)
        entry = save(second, 1, 2, 3)
        assert (kept(first), kept(second)) == ([], [entry])
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert lines == [
        f"KV carry-over: another gateway has {folder}; this one uses {path}" for path in folders[1:]
    ]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_gateway_alone_has_the_folder_itself_whoever_was_there_before(folder: Path) -> None:
    with (
        open_own_store(folder, MIB, persist=False),
        open_own_store(folder, MIB, persist=False) as second,
    ):
        save(second, 1, 2, 3)
    assert caches(folder.with_name("kv-2")) == []  # nothing stays without `persist`
    with open_own_store(folder, MIB, persist=False) as store:
        assert store.directory == folder


def test_with_persist_the_next_second_gateway_finds_what_the_last_one_left(folder: Path) -> None:
    with open_own_store(folder, MIB, persist=True) as first:
        mine = save(first, 1, 2, 3)
        with open_own_store(folder, MIB, persist=True) as second:
            theirs = save(second, 4, 5, 6)
        with open_own_store(folder, MIB, persist=True) as second:
            assert kept(second) == [theirs]
    with open_own_store(folder, MIB, persist=True) as first:
        assert kept(first) == [mine]


@pytest.mark.parametrize("whose", ["a file", "somebody's folder", "open to others"])
def test_a_neighbour_that_is_something_else_is_passed_over(folder: Path, whose: str) -> None:
    neighbour = folder.with_name("kv-2")
    if whose == "a file":
        neighbour.write_text("hi")
    else:
        neighbour.mkdir(mode=0o700)
        (neighbour / "letter.txt").write_text("hi")
        if whose == "open to others":
            neighbour.chmod(0o755)
    with (
        open_own_store(folder, MIB, persist=False),
        open_own_store(folder, MIB, persist=False) as second,
    ):
        assert second.directory == folder.with_name("kv-3")


def test_where_no_neighbour_can_be_had_the_folder_s_own_trouble_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_folder, "FOLDERS_MAX", 2)
    with (
        open_own_store(folder, MIB, persist=False),
        open_own_store(folder, MIB, persist=False),
        pytest.raises(KvStoreUnavailable, match=f"{folder} is in use by another gateway"),
        open_own_store(folder, MIB, persist=False),
    ):
        pass


def test_a_folder_that_cannot_be_used_at_all_has_no_neighbours(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(KvStoreUnavailable), open_own_store(folder, MIB, persist=False):
        pass
    assert not folder.with_name("kv-2").exists()
