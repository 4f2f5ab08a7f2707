"""`traceparent`, `tracestate` and `baggage`: what of them is valid, and what the gateway makes."""

from __future__ import annotations

import re

import pytest

from trio_gateway.server.api.trace_context import (
    BAGGAGE,
    TRACEPARENT,
    TRACESTATE,
    Header,
    Sampler,
    parent_of,
    trace_of,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = f"00-{TRACE}-{SPAN}-01".encode()
NOT_KEPT = f"00-{TRACE}-{SPAN}-00".encode()
STATE = (TRACESTATE, b"congo=t61rcWkgMzE")
USER = (BAGGAGE, b"user=ann")

INVALID = {
    "empty": b"",
    "a word": b"yes",
    "no flags": f"00-{TRACE}-{SPAN}".encode(),
    "capital letters": SENT.upper(),
    "one capital letter": SENT.replace(b"4bf9", b"4Bf9"),
    "no hex": SENT.replace(b"4bf9", b"4bg9"),
    "a trace of zeros": f"00-{'0' * 32}-{SPAN}-01".encode(),
    "a span of zeros": f"00-{TRACE}-{'0' * 16}-01".encode(),
    "version ff": b"ff" + SENT[2:],
    "a version of one digit": SENT[1:],
    "a short trace": SENT.replace(b"4bf9", b"4bf"),
    "a long span": SENT.replace(b"00f0", b"00f00"),
    "short flags": SENT[:-1],
    "more in version 00": SENT + b"-what",
    "more without a hyphen": b"01" + SENT[2:] + b"what",
    "underscores": SENT.replace(b"-", b"_"),
    "a line end": SENT + b"\n",
    "spaces": b" " + SENT,
    "two in one": SENT + b"," + SENT,
}


@pytest.mark.parametrize("value", INVALID.values(), ids=INVALID)
def test_an_invalid_traceparent_is_as_good_as_none(value: bytes) -> None:
    assert parent_of(value) is None
    assert trace_of([(b"host", b"h"), (TRACEPARENT, value), STATE]) is None


@pytest.mark.parametrize("value", [SENT, NOT_KEPT, b"01" + SENT[2:], b"cc" + SENT[2:] + b"-what"])
def test_a_valid_one_is_passed_on_as_it_was_sent(value: bytes) -> None:
    trace = trace_of([(b"host", b"h"), (TRACEPARENT, value), STATE, USER])
    assert trace is not None
    assert trace.to_engine == ((TRACEPARENT, value), STATE, USER)
    assert trace.echo == value
    assert trace.spans is None


def test_most_requests_have_none() -> None:
    assert trace_of([(b"host", b"h"), (b"accept", b"*/*")]) is None


def test_two_are_none() -> None:
    assert trace_of([(TRACEPARENT, SENT), (TRACEPARENT, SENT)]) is None


def test_a_tracestate_alone_belongs_to_nothing() -> None:
    assert trace_of([STATE]) is None


def test_baggage_needs_no_trace() -> None:
    trace = trace_of([USER, (TRACEPARENT, b"bad"), STATE])
    assert trace is not None
    assert (trace.to_engine, trace.echo) == ((USER,), None)


def test_lists_in_several_headers_are_one() -> None:
    more = [(TRACESTATE, b""), (TRACESTATE, b"rojo=1"), (BAGGAGE, b"a=1"), (BAGGAGE, b"b=2")]
    trace = trace_of([STATE, (TRACEPARENT, SENT), *more])
    assert trace is not None
    assert trace.state == STATE[1] + b",rojo=1"
    assert trace.baggage == b"a=1,b=2"


# -- with the gateway's own spans -----------------------------------------------------------------


def test_the_engine_gets_the_gateways_own_span_as_its_parent() -> None:
    trace = Sampler(0.0).joined(trace_of([(TRACEPARENT, SENT), STATE, USER]))
    spans = trace.spans
    assert spans is not None, "its client decides, not the share"
    assert (spans.trace.hex(), spans.parent) == (TRACE, bytes.fromhex(SPAN))
    assert spans.state == STATE[1].decode()
    own = f"00-{TRACE}-{spans.engine.hex()}-01".encode()
    assert trace.to_engine == ((TRACEPARENT, own), STATE, USER)
    assert trace.echo == SENT
    assert len({spans.request, spans.engine, spans.parent}) == 3


def test_what_a_client_does_not_keep_is_passed_on_as_it_is() -> None:
    trace = Sampler(1.0).joined(trace_of([(TRACEPARENT, NOT_KEPT), STATE]))
    assert trace.spans is None
    assert trace.to_engine == ((TRACEPARENT, NOT_KEPT), STATE)
    assert trace.echo == NOT_KEPT


def test_a_later_version_is_answered_in_ours_with_the_flags_that_we_know() -> None:
    trace = Sampler(1.0).joined(trace_of([(TRACEPARENT, b"cc" + SENT[2:-2] + b"ff-what")]))
    assert trace.spans is not None
    own = f"00-{TRACE}-{trace.spans.engine.hex()}-03".encode()
    assert trace.to_engine == ((TRACEPARENT, own),)


@pytest.mark.parametrize("headers", [[], [(TRACEPARENT, b"bad"), STATE], [USER]])
def test_without_a_valid_one_the_gateway_makes_one(headers: list[Header]) -> None:
    trace = Sampler(1.0).joined(trace_of(headers))
    spans = trace.spans
    assert spans is not None
    assert (spans.parent, spans.state) == (None, "")
    assert trace.echo == f"00-{spans.trace.hex()}-{spans.request.hex()}-03".encode()
    own = (TRACEPARENT, f"00-{spans.trace.hex()}-{spans.engine.hex()}-03".encode())
    assert trace.to_engine == (own, USER) if USER in headers else (own,)
    assert trace.echo is not None
    assert parent_of(trace.echo) is not None


def test_no_two_requests_have_the_same_ids() -> None:
    made = [Sampler(1.0).joined(None).spans for _ in range(100)]
    ids = {(s.trace, s.request, s.engine) for s in made if s is not None}
    assert len(ids) == 100


def test_of_those_that_the_share_leaves_out_the_engine_makes_none_either() -> None:
    trace = Sampler(0.0).joined(None)
    assert trace.spans is None
    assert trace.echo is not None
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-02", trace.to_engine[0][1])


def test_about_the_share_is_kept() -> None:
    sampler = Sampler(0.25)
    kept = sum(sampler.joined(None).spans is not None for _ in range(2000))
    assert 400 < kept < 600
