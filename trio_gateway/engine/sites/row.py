"""SiteRow: one URL of a remote model, as pages and programs are told of it. Pure."""

from __future__ import annotations

import msgspec


class SiteRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`state`: `untried`, `works`, `open` (it has failed, and is left alone until `retry_at_s`) or
    `half-open` (it is tried again). `since_s`, `retry_at_s`: Unix times. `reason`: the last
    failure, of one that does not work. `requests`: of ours, under way there. `first_byte_s` and
    `check_s`: smoothed times until the first byte of a stream, and for a health check. `peer_…`:
    requests that another gateway says it has, ours included; None: it does not say.
    """

    url: str
    state: str
    since_s: float | None = None
    reason: str = ""
    retry_at_s: float | None = None
    requests: int = 0
    weight: float = 1.0
    first_byte_s: float | None = None
    check_s: float | None = None
    peer_waiting: int | None = None
    peer_running: int | None = None
