"""Whatever our reader of HTTP/1.1 accepts, h11 accepts and reads in the same way.

So what we take for one request, no careful server takes for another: request smuggling needs two
readers that differ. The reverse does not hold, and need not: h11 takes more, such as lines that end
in a bare LF.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import h11
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import hostile_http
from tests.support.hostile_cases import Case
from tests.support.memory_network import MemoryNetwork
from tests.support.thoroughness import examples
from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.client_connections import ClientConnections, HttpConfig
from trio_gateway.server.http.http1 import body_of, read_head
from trio_gateway.server.http.types import Receive, Scope, Send

pytestmark = pytest.mark.untraced  # the single cases are in test_http1.py

HEAD_MAX_BYTES = 4000
H11_MAX_BYTES = 10**7  # the limits are ours, not h11's

# -- both readers ---------------------------------------------------------------------------------


class Request(NamedTuple):
    """What a server knows of one request, and so far of its body."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    keeps_alive: bool
    body: bytes = b""
    is_complete: bool = False


class Reading(NamedTuple):
    """Of all that came on one connection. `refusal`: the status that ends it; None: it waits for
    more, or has closed the connection after a request that asked for it."""

    requests: list[Request]
    rest: bytes
    refusal: int | None = None


def our_reading(pieces: Iterable[bytes]) -> Reading:
    buffer, requests = bytearray(), list[Request]()
    body, seen = None, 0
    try:
        for piece in pieces:
            buffer += piece
            while True:
                if body is None:
                    if requests and not requests[-1].keeps_alive:
                        break
                    if (head := read_head(buffer, HEAD_MAX_BYTES, seen)) is None:
                        seen = len(buffer)
                        break
                    seen = 0
                    requests.append(
                        Request(
                            head.method, head.target, head.version,
                            as_h11_has_it(head.headers), head.keeps_alive,
                        )
                    )  # fmt: skip
                    body = body_of(head)
                data = body.take(buffer)
                last = requests[-1]
                requests[-1] = last._replace(
                    body=last.body + data, is_complete=body.complete
                )  # fmt: skip
                if body.complete:
                    body = None
                elif not data:
                    break
    except ApiError as error:
        return Reading(requests, b"", error.status)
    return Reading(requests, bytes(buffer))


def as_h11_has_it(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in headers]


def h11_reading(data: bytes) -> Reading:
    requests: list[Request] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=H11_MAX_BYTES)
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                requests.append(
                    Request(
                        event.method.decode().upper(), event.target, event.http_version.decode(),
                        [*event.headers], keeps_alive=False,
                    )
                )  # fmt: skip
            elif isinstance(event, h11.Data):
                last = requests[-1]
                requests[-1] = last._replace(body=last.body + bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                requests[-1] = requests[-1]._replace(is_complete=True)
                connection.send(h11.Response(status_code=404, headers=[(b"content-length", b"0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    break
                requests[-1] = requests[-1]._replace(keeps_alive=True)
                if connection.their_state is h11.DONE:
                    connection.start_next_cycle()
            else:
                break
    except h11.RemoteProtocolError as error:
        return Reading(requests, b"", error.error_status_hint)
    return Reading(requests, connection.trailing_data[0])


def check(data: bytes) -> Reading:
    """That they agree, as far as ours has accepted anything."""
    ours, theirs = our_reading([data]), h11_reading(data)
    complete = [request for request in ours.requests if request.is_complete]
    assert complete == theirs.requests[: len(complete)]
    if ours.refusal is not None:
        return ours
    if len(ours.requests) > len(complete):  # the last one waits for the rest of its body
        waiting, same = ours.requests[-1], theirs.requests[len(complete)]
        assert waiting == same._replace(is_complete=False, keeps_alive=waiting.keeps_alive)
    elif len(theirs.requests) == len(complete) and theirs.refusal is None:
        assert ours.rest == theirs.rest
    return ours


# -- requests that are nearly right ---------------------------------------------------------------


def joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(b"".join)


def mostly(usual: bytes, *others: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(*[st.just(usual)] * 8, st.sampled_from(others))


EOL = mostly(b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r\n", b" \r\n", b"\r\n ", b"\x0b\r\n", b"")
SPACE = mostly(b" ", b"  ", b"\t", b"", b" \t", b"\x0c", b"\xa0")
METHOD = mostly(b"POST", b"GET", b"CONNECT", b"HEAD", b"post", b"P(ST", b"", b"A" * 40, b"\xc3\xbc")
TARGET = mostly(
    b"/v1/models", b"/", b"*", b"http://localhost/x?a=b", b"localhost:80", b"/%2e%2e/%", b"/a b",
    b"/a\rb", b"/a\x00", b"/\xff", b"//", b"/#x", b"", b"?", b"/\x7f", b"/a\tb",
)  # fmt: skip
VERSION = mostly(
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.10",
    b"HTTP/1.", b"HTTP/11", b"", b"HTTP/1.1 x", b"HTTP /1.1", b"HTTP/1,1", b"HTTP/\xb2.1",
)  # fmt: skip
COLON = mostly(b": ", b":", b" : ", b"\t:", b":\t ", b"", b"::", b":\r\n ", b" ")
NAMES = (
    b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Transfer-Encoding", b"Host",
    b"transfer-encoding", b"Connection", b"Upgrade", b"Expect", b"X", b"Content_Length", b"",
    b"X y", b"X\x00", b"X\xff", b"Trailer", b"TE", b"\tX", b" X",
)  # fmt: skip
LENGTHS = (
    b"0", b"1", b"5", b"5 ", b"05", b"005", b"+5", b"-5", b"0x5", b"5,5", b"5, 5", b"5,6", b"5;",
    b"", b" ", b"\t5", b"1e1", b"5.0", b"1_0", b"\xb2", b"9" * 18, b"9" * 19, b"9" * 20, b"0" * 30,
    b"4294967297", b"18446744073709551617", b"5\r", b"5\x00", b"5\x0b",
)  # fmt: skip
CODINGS = (
    b"chunked", b"Chunked", b"CHUNKED", b"chunked ", b" chunked", b"\tchunked", b"chunked,",
    b",chunked", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"gzip",
    b"chunked;q=1", b'"chunked"', b"chun\x00ked", b"\x0bchunked", b"chunked\x0b", b"", b"x",
)  # fmt: skip
VALUES = (
    b"localhost", b"close", b"keep-alive", b"keep-alive, Close", b"Upgrade", b"websocket", b"h2c",
    b"100-continue", b"a\r\n b", b"a\rb", b"a\nb", b"a\x00b", b"a\tb", b"\xc3\xbc", b"\x01",
    b"\x7f", b"x" * 300,
)  # fmt: skip


def line(names: st.SearchStrategy[bytes], values: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    return joined(names, COLON, st.sampled_from(values), EOL)


HOST = mostly(b"Host: localhost\r\n", b"Host:\r\n", b"", b"Host: a\r\nHost: b\r\n", b"host : a\r\n")
LENGTH = line(mostly(b"Content-Length", b"content-length", b"Content-Length "), LENGTHS)
CODING = line(mostly(b"Transfer-Encoding", b"TRANSFER-ENCODING", b"Transfer-encoding\t"), CODINGS)
OTHER = line(st.sampled_from(NAMES), VALUES + LENGTHS + CODINGS)
FRAMING = st.sampled_from([b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
FIELDS = joined(
    HOST,
    st.one_of(FRAMING, FRAMING, LENGTH, CODING, joined(LENGTH, LENGTH), joined(LENGTH, CODING)),
    st.lists(OTHER, max_size=3).map(b"".join),
)

SIZE = mostly(
    b"5", b"05", b"0005", b"1", b"0", b"00", b"5 ", b" 5", b"0x5", b"+5", b"-5", b"", b"g", b"A",
    b"a", b"5" * 16, b"0" * 15 + b"5", b"0" * 16 + b"5", b"f" * 21, b"5\t", b"5\x00", b"\xb2",
    b"100000000000000005",
)  # fmt: skip
EXTENSION = mostly(
    b"", b";", b";a", b"; a=b", b' ;a="b\r\n0"', b";a\rb", b";\x00", b";\n", b"\x0b",
    b";" + b"x" * 2000,
)  # fmt: skip
CHUNK = joined(SIZE, EXTENSION, EOL, st.sampled_from([b"hello", b"A", b"helloA", b""]), EOL)
TRAILER = st.lists(OTHER, max_size=2).map(b"".join)
LAST_CHUNK = joined(mostly(b"0", b"00", b"0;x", b"0 ", b"-0", b"0x0"), EOL, TRAILER, EOL)
BODY = st.one_of(
    st.sampled_from([b"", b"h", b"hello", b"helloA", b"\r\n"]),
    joined(st.lists(CHUNK, max_size=3).map(b"".join), LAST_CHUNK),
    joined(st.lists(CHUNK, max_size=3).map(b"".join), mostly(b"0\r\n\r\n", b"0\r\n", b"", b"0")),
)
REQUEST = joined(METHOD, SPACE, TARGET, SPACE, VERSION, EOL, FIELDS, EOL, BODY)

# What is right, so that a mistake in it is the only one.
GOOD_REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1;x=y\r\nh\r\n00000A\r\nello hello\r\n0\r\nX: y\r\n\r\n",
    b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAAA\r\nContent-Length: 5\r\n\r\nhello",
)
PIPELINED = st.lists(st.sampled_from(GOOD_REQUESTS), min_size=1, max_size=3).map(b"".join)
ODD_BYTES = st.sampled_from(
    [bytes([n]) for n in (0, 1, 9, 10, 11, 12, 13, 32, 35, 44, 48, 53, 58, 59, 127, 128, 133, 160)]
    + [b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\n ", b"Content-Length: 3\r\n", b"0\r\n\r\n"]
)


class Mutation(NamedTuple):
    where: float
    cut: int
    added: bytes

    def __call__(self, data: bytes) -> bytes:
        at = int(self.where * len(data))
        return data[:at] + self.added + data[at + self.cut :]


MUTATIONS = st.lists(
    st.builds(
        Mutation,
        st.floats(0, 1),
        st.integers(0, 3),
        st.one_of(st.just(b""), ODD_BYTES, st.binary(min_size=1, max_size=2)),
    ),
    min_size=1, max_size=2,
)  # fmt: skip


def mutate(data: bytes, mutations: Iterable[Mutation]) -> bytes:
    for mutation in mutations:
        data = mutation(data)
    return data


NEARLY_RIGHT = st.builds(mutate, PIPELINED, MUTATIONS)
CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ODD_CHUNKS = joined(st.just(CHUNKED), st.lists(CHUNK, max_size=3).map(b"".join), LAST_CHUNK)
ODD = joined(
    st.one_of(st.just(b""), PIPELINED),
    st.one_of(REQUEST, ODD_CHUNKS),
    st.one_of(st.just(b""), PIPELINED),
)
ANYTHING = st.one_of(NEARLY_RIGHT, ODD, st.binary(max_size=200))


def cut(data: bytes, places: Iterable[float]) -> list[bytes]:
    ends = sorted({int(place * len(data)) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


# -- what holds -----------------------------------------------------------------------------------


@given(NEARLY_RIGHT)
@settings(max_examples=examples(200))
def test_a_request_with_a_mistake_is_read_as_h11_reads_it_or_refused(data: bytes) -> None:
    check(data)


@given(ODD)
@settings(max_examples=examples(200))
def test_an_odd_request_is_read_as_h11_reads_it_or_refused(data: bytes) -> None:
    check(data)


@given(st.binary(max_size=300))
@settings(max_examples=examples(200))
def test_bytes_are_read_as_h11_reads_them_or_refused(data: bytes) -> None:
    check(data)


@given(PIPELINED)
@settings(max_examples=examples(200))
def test_what_is_right_is_accepted(data: bytes) -> None:
    reading = check(data)
    assert reading.refusal is None
    assert reading.requests
    assert all(request.is_complete for request in reading.requests)


@given(ANYTHING, st.lists(st.floats(0, 1), max_size=6))
@settings(max_examples=examples(200))
def test_how_it_is_cut_makes_no_difference(data: bytes, places: list[float]) -> None:
    check_cuts(data, cut(data, places))


@given(ANYTHING)
@settings(max_examples=examples(200))
def test_it_may_come_byte_by_byte(data: bytes) -> None:
    check_cuts(data, [bytes([byte]) for byte in data])


def check_cuts(data: bytes, pieces: list[bytes]) -> None:
    whole, in_pieces = our_reading([data]), our_reading(pieces)
    assert (in_pieces.refusal is None) == (whole.refusal is None)
    assert [r for r in in_pieces.requests if r.is_complete] == [
        r for r in whole.requests if r.is_complete
    ]
    if whole.refusal is None:
        assert in_pieces == whole


class Served(NamedTuple):
    """What an app and its client saw of a connection."""

    requests: list[Request]
    statuses: list[bytes]
    has_websocket: bool


async def served(pieces: Iterable[bytes], *, reads: bool) -> Served:
    """All that is made of this by a real connection, whose app reads bodies or does not."""
    requests: list[Request] = []
    has_websocket = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal has_websocket
        if scope["type"] == "websocket":
            has_websocket = True
            return
        target = scope["raw_path"] + b"?" + scope["query_string"]
        headers = as_h11_has_it(scope["headers"])
        at, body, is_complete = len(requests), b"", False
        requests.append(
            Request(scope["method"], target, scope["http_version"], headers, keeps_alive=True)
        )
        with trio.move_on_after(1):  # much longer than it takes to come
            while reads and not is_complete:
                message = await receive()
                body += message.get("body", b"")
                is_complete = not message.get("more_body")
                requests[at] = requests[at]._replace(body=body, is_complete=is_complete)
        if is_complete or not reads:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    answers = b""
    async with trio.open_nursery() as nursery:
        limits = ConnectionLimits(max_header_bytes=HEAD_MAX_BYTES)
        network = MemoryNetwork(nursery, app, ClientConnections(limits, counted=False))
        network.config = HttpConfig(limits)
        client = network.connect()
        for piece in pieces:
            await client.send_all(piece)
        while more := await client.receive_some(65536):
            answers += more
    statuses = re.findall(rb"HTTP/1\.1 (\d+) [A-Z][^\r]*\r\n", answers)
    return Served(requests, [s for s in statuses if s != b"100"], has_websocket)


def comparable(requests: Iterable[Request], *, with_bodies: bool) -> list[Request]:
    found = []
    for request in requests:
        path, _, query = request.target.partition(b"?")
        same = request._replace(target=path + b"?" + query, keeps_alive=True)
        found.append(same if with_bodies else same._replace(body=b"", is_complete=False))
    return found


@given(ANYTHING, st.lists(st.floats(0, 1), max_size=3), st.booleans())
@settings(max_examples=examples(200))
def test_a_connection_makes_of_it_what_the_reader_does(
    data: bytes, places: list[float], reads: bool
) -> None:
    reading = our_reading([data])
    clock = trio.testing.MockClock(autojump_threshold=0)
    got = trio.run(partial(served, cut(data, places), reads=reads), clock=clock)
    expected = comparable(reading.requests, with_bodies=reads)
    found = comparable(got.requests, with_bodies=reads)
    if got.has_websocket:  # which ends it
        assert found == expected[: len(found)]
        return
    if reading.refusal is not None and found != expected:  # cut before what is wrong, or after
        *before, last = expected
        assert found[:-1] == before
        assert last.body.startswith(found[-1].body) or found[-1].body.startswith(last.body)
    else:
        assert found == expected
    # Each request has one answer, and so has what is not a request. A body that is not complete has
    # none if it is waited for, and one that is malformed no second one.
    is_all_answered = all(request.is_complete for request in reading.requests) or not reads
    refused = reading.refusal is not None and all(r.is_complete for r in reading.requests)
    waits = reading.refusal is None and reading.rest != b"" and all_go_on(reading.requests)
    assert len(got.statuses) == len(found) + (refused or (waits and is_all_answered))


def all_go_on(requests: Iterable[Request]) -> bool:
    return all(request.is_complete and request.keeps_alive for request in requests)


@pytest.mark.parametrize("over", range(-5, 6))
def test_the_limit_on_heads_is_where_it_is_however_they_come(over: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n"
    data = head % (b"x" * (HEAD_MAX_BYTES + over - len(head) + 2))
    assert len(data) == HEAD_MAX_BYTES + over
    check_cuts(data, [bytes([byte]) for byte in data])
    assert our_reading([data]).refusal == (431 if over > 0 else None)


CORPUS = [case for group in (hostile_http.framing, hostile_http.requests) for case in group()]


@pytest.mark.parametrize("case", CORPUS, ids=[case.name[:60] for case in CORPUS])
def test_the_corpus_of_smuggled_requests(case: Case) -> None:
    """What the whole gateway makes of them: test_hostile_inputs.py."""
    reading = check(case.data)
    check_cuts(case.data, cut(case.data, [n / 50 for n in range(50)]))
    if case.is_raw and 404 not in case.statuses and not case.statuses & {0, 200, 413}:
        assert reading.refusal in case.statuses
    assert not any(b"smuggled" in request.target for request in reading.requests)
