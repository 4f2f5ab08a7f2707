"""A saved cache's file: its token ids, what its digest notices, and who can read it."""

from __future__ import annotations

import os
import random
import stat
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from trio_gateway.engine.kv import file as kv_file
from trio_gateway.engine.kv.file import digest, read_token_ids

IDS = [1, 9690, 198, 2683, 0]
posix = pytest.mark.skipif(os.name == "nt", reason="Windows knows no permission bits")


def save_file(
    numbers: Sequence[int], *, version: int = 4, count: int | None = None, magic: int = 0x67677371
) -> bytes:
    """What an engine would write, with a short cache."""
    head = struct.pack("<III", magic, version, len(numbers) if count is None else count)
    return head + struct.pack(f"<{len(numbers)}i", *numbers) + b"the cache"


def wrapped(ids: Sequence[int]) -> list[int]:
    """The numbers as engines write them since build 10566, whatever the file's version."""
    return [-1, 1, len(ids), *ids, 0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.bin"


# -- token ids ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_ids_are_read_from_a_file_that_wraps_them(file: Path, version: int) -> None:
    file.write_bytes(save_file(wrapped(IDS), version=version))
    assert read_token_ids(file, 5) == array("i", IDS)


@pytest.mark.parametrize("version", [2, 3])
def test_the_ids_are_read_from_a_file_of_an_older_engine(file: Path, version: int) -> None:
    file.write_bytes(save_file(IDS, version=version))
    assert read_token_ids(file, 5) == array("i", IDS)


def test_the_magic_number_is_that_of_llama_cpp() -> None:
    assert save_file([])[:4] == b"qsgg"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"qsgg",
        random.Random(1).randbytes(4000),  # the same in each worker
        save_file(wrapped(IDS), magic=0x67677370),
        save_file(wrapped(IDS), version=5),
        save_file(IDS, version=1),
        save_file(IDS),  # version 4, not wrapped
        save_file(wrapped(IDS), version=1),
        save_file([-1, 1, 4, *IDS, 0], version=2),
        save_file(wrapped([*IDS, 7])),  # of six tokens
        save_file([-1, 1, 6, *IDS, 0]),
        save_file([-1, 2, 5, *IDS, 0]),
        save_file([-1, 1, 5, *IDS, 1]),
        save_file(wrapped([1, -1, -1, -1, 2])),  # an image
        save_file([1, -1, -1, -1, 2], version=3),
        save_file(wrapped(IDS))[:30],
        save_file([], count=9),
    ],
)
def test_the_ids_of_any_other_file_are_unknown(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert read_token_ids(file, 5) is None


def test_a_huge_count_is_not_believed(file: Path) -> None:
    file.write_bytes(save_file([], count=2**32 - 1))
    assert read_token_ids(file, 5) is None
    assert digest(file)


@pytest.mark.parametrize("read", [lambda path: read_token_ids(path, 5), digest])
def test_a_file_that_is_gone_is_an_error(file: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(FileNotFoundError):
        read(file)


# -- digests --------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_bytes_and_of_nothing_else(file: Path, tmp_path: Path) -> None:
    file.write_bytes(save_file(wrapped(IDS)))
    same = tmp_path / "b.bin"
    same.write_bytes(file.read_bytes())
    os.utime(same, (0, 0))
    assert digest(file) == digest(same)


@pytest.mark.parametrize("size", [1, 100, 4096, 64 * 1024, 300 * 1024])
def test_the_digest_notices_any_byte_of_a_small_file(file: Path, size: int) -> None:
    data = bytearray(os.urandom(size))
    file.write_bytes(data)
    before = digest(file)
    for place in {0, size // 3, size // 2, size - 1}:
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert digest(file) != before, place


def test_the_digest_notices_a_length_that_differs(file: Path) -> None:
    seen = set()
    for size in (0, 1, 4095, 4096, 1_000_000, 1_000_001):
        file.write_bytes(bytes(size))
        seen.add(digest(file))
    assert len(seen) == 6


def test_the_digest_covers_all_token_ids_and_the_end(file: Path) -> None:
    data = bytearray(save_file(wrapped(range(50_000))) + bytes(2_000_000))
    file.write_bytes(data)
    before = digest(file)
    for place in (12 + 4 * 49_990, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(changed)
        assert digest(file) != before, place


def test_the_digest_notices_a_large_file_that_was_overwritten_in_part(file: Path) -> None:
    data = bytearray(os.urandom(4_000_000))
    file.write_bytes(data)
    before = digest(file)
    data[1_000_000:1_100_000] = bytes(100_000)
    file.write_bytes(data)
    assert digest(file) != before


# -- private files --------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
def test_what_is_written_or_moved_is_for_nobody_else(tmp_path: Path) -> None:
    written, moved = tmp_path / "written", tmp_path / "moved"
    kv_file.write_private(written, b"x")
    assert mode(written) == 0o600
    written.chmod(0o644)
    kv_file.move_private(written, moved)
    assert (mode(moved), written.exists()) == (0o600, False)


def test_an_existing_file_is_not_overwritten(file: Path) -> None:
    file.write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        kv_file.write_private(file, b"ours")
    assert file.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    "name",
    [
        "gateway-kv-.bin",
        "gateway-kv-0123456789abcdef.bin.bak",
        "gateway-kv-0123456789abcdeF.bin",
        "gateway-kv-0123456789abcdef.txt",
        "gateway-kv-0123456789abcdef0.bin",
        "my-gateway-kv-0123456789abcdef.bin",
        "gateway-kv-0123456789abcdef.bin\n",
        kv_file.LOCK_NAME,
    ],
)
def test_names_of_others_are_not_taken_for_ours(name: str) -> None:
    assert not kv_file.is_ours(name)


def test_our_names_are_recognized_and_never_the_same() -> None:
    first, second = kv_file.random_name(".tmp"), kv_file.random_name(".tmp")
    assert first != second
    assert kv_file.is_ours(first)
    assert kv_file.is_ours(first, ".tmp")
    assert not kv_file.is_ours(first, ".bin")
