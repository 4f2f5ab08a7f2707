"""Which answers are read whole before any of it is used or passed on. Pure.

One that is whole can be repeated elsewhere if its engine dies in it, and changed: the model's name,
the shape of an error. Events, sound and pictures go out as they come.
"""

from __future__ import annotations

from collections.abc import Sequence

# The first piece of a longer answer has this many bytes, or more.
WHOLE_ANSWER_MAX_BYTES = 16 * 1024**2

_EVENTS = b"text/event-stream"
_JSON_KINDS = (b"application/json", b"application/json; charset=utf-8")  # as most write it
_FIRST_ERROR_STATUS = 400


def whole_up_to(status: int, headers: Sequence[tuple[bytes, bytes]]) -> int:
    """How many bytes of an answer are waited for; 0: its first piece will do.

    Hosted APIs and proxies send their JSON in chunks, so no length is no reason not to wait.
    `headers` have lower-case names.
    """
    known = dict(headers)
    kind = known.get(b"content-type", b"")
    if kind not in _JSON_KINDS:
        kind = kind.partition(b";")[0].strip().lower()
    if kind == _EVENTS:
        return 0
    length = known.get(b"content-length", b"")
    if length.isdigit():
        return WHOLE_ANSWER_MAX_BYTES if int(length) <= WHOLE_ANSWER_MAX_BYTES else 0
    return WHOLE_ANSWER_MAX_BYTES if kind in _JSON_KINDS or status >= _FIRST_ERROR_STATUS else 0
