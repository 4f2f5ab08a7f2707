"""The folder that a gateway keeps saved KV caches in, while others of the same user run as well."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from trio_gateway.engine.kv.file import is_store_s
from trio_gateway.engine.kv.store import (
    KvStore,
    KvStoreInUse,
    KvStoreUnavailable,
    open_store,
)

log = logging.getLogger(__name__)

FOLDERS_MAX = 16  # gateways at a time


@contextlib.contextmanager
def open_own_store(directory: Path, max_bytes: int, *, persist: bool) -> Iterator[KvStore]:
    """As `open_store`; while another gateway has the folder, in the first of its neighbours
    `NAME-2`, `NAME-3`, … that none has. They stay where they are, for the next that needs one.

    Raises:
        KvStoreUnavailable: none can be used; what it says is about `directory` itself.
    """
    with contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(open_store(directory, max_bytes, persist=persist))
        except KvStoreInUse as in_use:
            for neighbour in _neighbours(directory):
                with contextlib.suppress(KvStoreUnavailable):
                    opened = open_store(neighbour, max_bytes, persist=persist)
                    store = stack.enter_context(opened)
                    break
            else:
                raise in_use
            log.info(
                "KV carry-over: another gateway has %s; this one uses %s",
                directory, store.directory,
            )  # fmt: skip
        yield store


def _neighbours(directory: Path) -> Iterator[Path]:
    """Those that are a store's, or nobody's yet."""
    for number in range(2, FOLDERS_MAX + 1):
        path = directory.with_name(f"{directory.name}-{number}")
        with contextlib.suppress(OSError):
            if not path.exists() or all(map(is_store_s, os.listdir(path))):
                yield path
