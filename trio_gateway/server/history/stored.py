"""What a file of the history gives. Apart from the file, as SQLite takes 1 MB of memory."""

from __future__ import annotations

import msgspec

from trio_gateway.server.history.selection import Place


class HistoryUnavailable(Exception):
    """The file cannot be used now, and why."""


class StoredRequest(msgspec.Struct, frozen=True):
    """`row`: a RequestRow as JSON."""

    place: Place
    row: msgspec.Raw
