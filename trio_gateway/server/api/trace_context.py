"""Trace: which trace a request belongs to, as W3C's Trace Context has it. Pure.

A client says so in `traceparent` and `tracestate`, and may add `baggage`. Without `server.traces`
they are passed on as they are. With it the gateway's own spans come in between: what an engine gets
names the gateway's as its parent.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import msgspec

Header = tuple[bytes, bytes]

TRACEPARENT, TRACESTATE, BAGGAGE = b"traceparent", b"tracestate", b"baggage"
TRACE_HEADERS = frozenset({TRACEPARENT, TRACESTATE, BAGGAGE})
# Version, trace, parent, flags. Later versions may say more behind that; ff is none.
_PARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED, _RANDOM = 0x01, 0x02


class Parent(msgspec.Struct, frozen=True):
    """What a `traceparent` says: the trace, and the span of it that the request was made in."""

    trace: bytes  # 16
    span: bytes  # 8
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether its sender's spans are kept, and those that belong to them should be as well."""
        return bool(self.flags & _SAMPLED)


class SpanIds(msgspec.Struct, frozen=True):
    """What the gateway's spans of one request are told by. `parent`: the client's span."""

    trace: bytes
    request: bytes
    engine: bytes
    parent: bytes | None
    state: str  # the client's `tracestate`


class Trace(msgspec.Struct, frozen=True):
    """Of one request. `echo`: the `traceparent` that its client finds in the answer. `parent`,
    `state`, `baggage`: what the client sent, where it is valid. `spans`: None: none are made."""

    to_engine: tuple[Header, ...]
    echo: bytes | None
    parent: Parent | None = None
    state: bytes = b""
    baggage: bytes = b""
    spans: SpanIds | None = None


def trace_of(headers: Sequence[Header]) -> Trace | None:
    """What a client says in TRACE_HEADERS; None: nothing. Names are in small letters."""
    parents = [value for name, value in headers if name == TRACEPARENT]
    parent = parent_of(parents[0]) if len(parents) == 1 else None
    # Without a valid parent it belongs to nothing.
    state = b"" if parent is None else _joined(headers, TRACESTATE)
    baggage = _joined(headers, BAGGAGE)
    if parent is None and not baggage:
        return None
    echo = None if parent is None else parents[0]
    return Trace(_for_engine(echo, state, baggage), echo, parent, state, baggage)


def parent_of(value: bytes) -> Parent | None:
    """What a `traceparent` says; None: it is not valid."""
    match = _PARENT.fullmatch(value)
    if match is None or (match[1] == b"00" and match[5] is not None):
        return None
    trace, span, flags = (bytes.fromhex(match[part].decode()) for part in (2, 3, 4))
    return Parent(trace, span, flags[0])


def _joined(headers: Sequence[Header], wanted: bytes) -> bytes:
    """A list may come in several headers."""
    return b",".join(value for name, value in headers if name == wanted and value)


def _for_engine(parent: bytes | None, state: bytes, baggage: bytes) -> tuple[Header, ...]:
    pairs = ((TRACEPARENT, parent), (TRACESTATE, state), (BAGGAGE, baggage))
    return tuple((name, value) for name, value in pairs if value)


class Sampler:
    """Decides of which requests the gateway makes spans, and what these are called.

    Args:
        share: of the requests whose client does not say.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._random = random.SystemRandom()

    def joined(self, trace: Trace | None) -> Trace:
        """A request's trace with the gateway in it: its client's or, if it has none, a new one."""
        parent = None if trace is None else trace.parent
        if trace is not None and parent is not None and not parent.is_sampled:
            return trace  # its client's span is the last that is kept
        new = self._random.randbytes
        request, engine = _span_id(new(8)), _span_id(new(8))
        state, baggage = (b"", b"") if trace is None else (trace.state, trace.baggage)
        if parent is None:
            id_, is_kept = new(16), self._random.random() < self._share
            flags = _RANDOM | is_kept
        else:
            id_, is_kept = parent.trace, True
            flags = parent.flags & (_RANDOM | _SAMPLED)
        echo = _traceparent(id_, request, flags) if parent is None or trace is None else trace.echo
        spans = None
        if is_kept:
            before = None if parent is None else parent.span
            spans = SpanIds(id_, request, engine, before, state.decode("latin-1"))
        to_engine = _for_engine(_traceparent(id_, engine, flags), state, baggage)
        return Trace(to_engine, echo, parent, state, baggage, spans)


def _span_id(random_bytes: bytes) -> bytes:
    """Never all zero, which would be none."""
    return random_bytes if any(random_bytes) else b"\0" * 7 + b"\1"


def _traceparent(trace: bytes, span: bytes, flags: int) -> bytes:
    return f"00-{trace.hex()}-{span.hex()}-{flags:02x}".encode()
