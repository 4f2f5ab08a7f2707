"""Files with saved KV caches: what is in them, and how they and their folder stay private.

The layout is that of llama.cpp's `llama_state_seq_save_file`, little endian: magic, version, count
(u32 each), `count` numbers (i32), then the cache itself, which is not looked at.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import struct
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

log = logging.getLogger(__name__)

# Saved caches hold conversations.
PRIVATE_MODE = 0o600
_FOLDER_MODE = 0o700
_OTHERS = 0o077

LOCK_NAME = "gateway-kv.lock"
SLOTS_NAME = "gateway-kv-slots"
_OUR_NAME = re.compile(r"gateway-kv-[0-9a-f]{16}(\.bin|\.json|\.tmp)")
_PROBE_BYTES = 4096

_HEADER = struct.Struct("<III")  # magic, version, count
_MAGIC = 0x67677371  # b"qsgg" in the file
_PLAIN_VERSIONS = (2, 3)  # the numbers are the ids, of builds before 10566
_WRAPPED_VERSIONS = (2, 3, 4)  # the numbers are -1, 1, n_saved, the ids, 0
_WRAPPING = 4  # numbers
_ID_BYTES = 4

_HEAD_BYTES = 64 * 1024
_BLOCKS = 64
_BLOCK_BYTES = 4096
_DIGEST_BYTES = 32
_COPY_BYTES = 2**20


class KvEntry(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag="gateway-kv-1"):
    """A saved KV cache: of which conversation, and what its file was like when it was saved."""

    name: str  # of the file in the store's folder
    model: str
    fingerprint: str  # of whatever must be the same for an engine to restore it; the caller's
    tokens: int  # the engine's n_saved
    prompt_tokens: int | None = None  # of its last turn; None: not known
    owner: str = ""  # the API key's name; empty where owners were not kept apart
    size_bytes: int
    mtime_ns: int
    digest: str
    saved_at: float  # s, wall clock


def stat_fault(path: Path, entry: KvEntry) -> str | None:
    """Why it is not what was saved, by its size and time of change; OSError if it is gone."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return "its file was replaced by something that is not a file"
    if status.st_size != entry.size_bytes:
        return f"its file has {status.st_size} bytes instead of {entry.size_bytes}"
    if status.st_mtime_ns != entry.mtime_ns:
        return "its file was written to after it was saved"
    return None


def digest_fault(path: Path, entry: KvEntry) -> str | None:
    """Why it is not what was saved, by its bytes; OSError if they cannot be read."""
    same = digest(path) == entry.digest
    return None if same else "its file's bytes are not those that were saved"


def read_token_ids(path: Path, n_saved: int) -> array[int] | None:
    """The ids of the `n_saved` tokens whose cache the file holds; None for an unknown layout.

    Unknown is as well: another number of tokens, an id below 0 (an image or audio), no such file
    format at all.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        version, count = _read_header(file)
        wrapped = count == n_saved + _WRAPPING
        # Compared before anything is read: a wrong count may be gigabytes.
        if version not in (_WRAPPED_VERSIONS if wrapped else _PLAIN_VERSIONS):
            return None
        if not wrapped and count != n_saved:
            return None
        data = file.read(count * _ID_BYTES)
    if len(data) != count * _ID_BYTES:
        return None
    ids = array("i", data)
    if sys.byteorder == "big":
        ids.byteswap()
    if wrapped:
        before, ids, after = ids[:3], ids[3:-1], ids[-1]
        if before.tolist() != [-1, 1, n_saved] or after != 0:
            return None
    return ids if min(ids, default=0) >= 0 else None


def _read_header(file: BinaryIO) -> tuple[int, int]:
    """Version and count; zeros for what is not a save file."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return 0, 0
    magic, version, count = _HEADER.unpack(head)
    return (version, count) if magic == _MAGIC else (0, 0)


def digest(path: Path) -> str:
    """A hash, in hex, of the file's size and samples of its bytes; milliseconds for gigabytes.

    Read are the header with all token ids and 64 KiB after it, 64 blocks of 4 KiB spread evenly
    over the rest, and the last 4 KiB: all of a file up to 320 KiB. So it notices another file, a
    truncated one, and one of which much was overwritten. It does not notice a few bytes changed
    between the blocks (a flipped bit, a page that a power failure lost), and it has no key: it
    protects from accidents, not from somebody who may write to the folder.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        hasher = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=_DIGEST_BYTES)
        _, count = _read_header(file)
        head = min(size, _HEADER.size + count * _ID_BYTES + _HEAD_BYTES)
        _hash_range(hasher, file, 0, head)
        for block in range(_BLOCKS):
            _hash_range(hasher, file, head + (size - head) * block // _BLOCKS, _BLOCK_BYTES)
        _hash_range(hasher, file, max(head, size - _BLOCK_BYTES), _BLOCK_BYTES)
    return hasher.hexdigest()


def _hash_range(hasher: hashlib.blake2b, file: BinaryIO, start: int, length: int) -> None:
    file.seek(start)
    # In pieces: a damaged header may call all of a huge file token ids.
    while length > 0 and (piece := file.read(min(length, _COPY_BYTES))):
        hasher.update(piece)
        length -= len(piece)


def write_private(path: Path, data: bytes) -> None:
    """A new file that nobody else can read. OSError leaves nothing behind."""
    with _new_private_file(path) as file:
        file.write(data)


def _copy_private(source: Path, target: Path) -> None:
    with source.open("rb") as read, _new_private_file(target) as written:
        shutil.copyfileobj(read, written, _COPY_BYTES)


def move_private(source: Path, target: Path) -> None:
    """Move a file, to another file system as well, and let nobody else read it.

    Raises:
        OSError: it cannot be moved. The source is where it was.
    """
    source.chmod(PRIVATE_MODE)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_private(source, target)
        source.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """A second name of the file, or a private copy; raises OSError if neither can be had."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        _copy_private(source, target)


def remove(path: Path) -> None:
    """Remove a file if it exists; a failure is logged."""
    with logged(str(path)):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """An OSError in the block costs a line in the log, and no more."""
    try:
        yield
    except OSError as error:
        log.warning("saved KV cache %s: %s", what, reason(error))


def reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


@contextlib.contextmanager
def _new_private_file(path: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    try:
        with open(descriptor, "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)  # half a file would look like a whole one
        raise


def random_name(suffix: str) -> str:
    return f"gateway-kv-{secrets.token_hex(8)}{suffix}"


def is_ours(name: str, suffix: str | None = None) -> bool:
    """Whether a store gave a file this name; with that suffix, if one is asked for."""
    match = _OUR_NAME.fullmatch(name)
    return match is not None and suffix in (None, match[1])


def is_store_s(name: str) -> bool:
    """Whether it is a store's file, lock or folder."""
    return is_ours(name) or name in (LOCK_NAME, SLOTS_NAME)


def remove_all(folder: Path) -> None:
    """Remove a folder with all that is in it, if it exists; a failure is logged."""
    with logged(str(folder)):
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def make_private_folder(folder: Path) -> str | None:
    """Make it, and what is missing above it, for us alone; why it cannot be used, or None.

    A folder that others may enter is closed to them if it is empty or has files of a store only.

    Raises:
        OSError: it cannot be made, or is not a folder.
    """
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    names = os.listdir(folder)
    if os.name == "nt":  # its permission bits say nothing
        return None
    status = folder.stat()
    if status.st_uid != os.geteuid():
        return "belongs to another user, who could read the conversations in saved KV caches"
    if status.st_mode & _OTHERS:
        foreign = not all(map(is_store_s, names))
        # A sticky folder is meant to be shared, /tmp for one, even while it is empty.
        if foreign or status.st_mode & stat.S_ISVTX:
            return (
                "is open to other users, who could read the conversations in saved KV caches: "
                f"chmod 700 {folder} if it is not meant for them"
            )
        folder.chmod(_FOLDER_MODE)
    return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this gateway, and see that a file can be written there.

    The lock ends with the process, however it ends. Its file stays: removing it would let two
    gateways hold locks on two files of one name. Windows has no such lock.

    Raises:
        BlockingIOError: another gateway holds it.
        OSError: no lock, or no file, can be had there (read-only, full).
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(folder / LOCK_NAME, flags, PRIVATE_MODE)
    try:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        probe = folder / random_name(".tmp")
        write_private(probe, bytes(_PROBE_BYTES))
        probe.unlink()
        yield
    finally:
        os.close(descriptor)
