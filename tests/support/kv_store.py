"""A store of saved KV caches whose engine is this test."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from trio_gateway.engine.kv import file as kv_file
from trio_gateway.engine.kv.store import KvEntry, KvStore

MIB = 2**20


def cache_of(ids: Sequence[int], size: int = 1000) -> bytes:
    """What an engine saves of these tokens: a file of version 4, `size` bytes long."""
    numbers = [-1, 1, len(ids), *ids, 0]
    head = struct.pack(f"<III{len(numbers)}i", 0x67677371, 4, len(numbers), *numbers)
    return head + os.urandom(size - len(head))


def save(
    store: KvStore,
    *ids: int,
    model: str = "m",
    fingerprint: str = "f",
    size: int = 1000,
    folder: Path | None = None,
) -> KvEntry:
    """An engine saves, and the store takes it in."""
    written = (folder or store.directory) / store.new_name()
    written.write_bytes(cache_of(ids, size))
    return store.commit(
        written, model=model, fingerprint=fingerprint, tokens=len(ids), size_bytes=size
    )


def caches(folder: Path) -> list[Path]:
    """What is in the folder, apart from the lock."""
    return sorted(path for path in folder.iterdir() if path.name != kv_file.LOCK_NAME)


def kept(store: KvStore, model: str = "m") -> list[KvEntry]:
    return store.also_of(model)
