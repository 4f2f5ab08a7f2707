"""Whether this process is the only one that its parent runs the gateway in."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trio_gateway.engine.process.groups import HAS_GROUPS


@contextlib.contextmanager
def single_worker(parent: int) -> Iterator[bool]:
    """True in the first process of this parent that asks, for as long as the block runs."""
    if not HAS_GROUPS:
        yield True
        return
    import fcntl

    path = Path(tempfile.gettempdir()) / f"trio-gateway-{os.getuid()}-{parent}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
