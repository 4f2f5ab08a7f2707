"""What is remembered of requests that are over: the table `server.history`."""

from __future__ import annotations

from pathlib import Path

import msgspec

REQUESTS_MAX = 100_000


class HistoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`requests`: the last ones, in memory. `file`: those of the last `keep_s` seconds as well,
    across restarts; None: nowhere else."""

    requests: int = 1000
    file: Path | None = None
    keep_s: float = 30 * 86400.0
