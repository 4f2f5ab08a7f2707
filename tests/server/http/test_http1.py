"""Requests as bytes, and what is read from them or refused. `test_http1_against_h11.py` has many
more, without saying what they are."""

from __future__ import annotations

import pytest

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.http1 import (
    TRAILER_MAX_BYTES,
    RequestHead,
    body_of,
    read_head,
    what_was_asked,
)

MAX_BYTES = 1000
HOST = b"Host: a\r\n"


def head_of(line: bytes, *fields: bytes) -> RequestHead:
    buffer = bytearray(b"\r\n".join([line, *fields, b"", b""]))
    head = read_head(buffer, MAX_BYTES)
    assert head is not None
    assert not buffer
    return head


def get(*fields: bytes) -> RequestHead:
    return head_of(b"GET / HTTP/1.1", b"Host: a", *fields)


def read_all(data: bytes) -> None:
    """A head, and what there is of the body after it."""
    buffer = bytearray(data)
    head = read_head(buffer, MAX_BYTES)
    assert head is not None, "it waits for more"
    body = body_of(head)
    while body.take(buffer):
        pass


def refusal_of(data: bytes) -> tuple[int, str]:
    """Status and message."""
    with pytest.raises(ApiError) as caught:
        read_all(data)
    return caught.value.status, caught.value.message


# -- heads ----------------------------------------------------------------------------------------


def test_a_head_is_read_as_it_was_sent() -> None:
    head = head_of(b"PATCH /a%20b?c=d HTTP/1.1", b"Host: a", b"X-Y:\t z  w \t", b"x-y:", b"E: \xc3")
    assert (head.method, head.target, head.version) == ("PATCH", b"/a%20b?c=d", "1.1")
    fields = [(b"host", b"a"), (b"x-y", b"z  w"), (b"x-y", b""), (b"e", b"\xc3")]
    assert head.headers == fields
    assert (head.length, head.keeps_alive) == (0, True)
    assert not head.expects_continue
    assert not head.wants_websocket


def test_a_method_may_be_in_small_letters() -> None:
    assert head_of(b"post / HTTP/1.1", b"Host: a").method == "POST"


def test_what_follows_a_head_is_left() -> None:
    buffer = bytearray(b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET /next")
    assert read_head(buffer, MAX_BYTES) is not None
    assert buffer == b"GET /next"
    assert read_head(buffer, MAX_BYTES) is None
    assert buffer == b"GET /next"


@pytest.mark.parametrize(
    ("field", "length"),
    [
        (b"Content-Length: 5", 5), (b"content-length:\t005 ", 5), (b"Content-Length: 0", 0),
        (b"Content-Length: 9999999999999999999", 10**19 - 1), (b"X: 5", 0),
        (b"Transfer-Encoding: chunked", None), (b"TRANSFER-ENCODING: Chunked", None),
    ],
)  # fmt: skip
def test_how_long_a_body_is(field: bytes, length: int | None) -> None:
    assert get(field).length == length


@pytest.mark.parametrize(
    ("head", "keeps_alive"),
    [
        (get(), True),
        (get(b"Connection: close"), False),
        (get(b"Connection: keep-alive"), True),
        (get(b"Connection: TE, CLOSE"), False),
        (get(b"Connection: TE", b"Connection: close"), False),
        (get(b"Connection: closed"), True),
        (head_of(b"GET / HTTP/1.0"), False),
        (head_of(b"GET / HTTP/1.0", b"Connection: keep-alive"), False),
    ],
)
def test_whether_another_request_may_follow(head: RequestHead, keeps_alive: bool) -> None:
    assert head.keeps_alive == keeps_alive


UPGRADE, TO_WEBSOCKET = b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket"


@pytest.mark.parametrize(
    ("head", "wants_websocket"),
    [
        (get(UPGRADE, TO_WEBSOCKET), True),
        (get(UPGRADE), False),
        (get(TO_WEBSOCKET), False),
        (get(UPGRADE, b"Upgrade: h2c"), False),
        (get(UPGRADE, TO_WEBSOCKET, b"Content-Length: 1"), False),
        (head_of(b"POST / HTTP/1.1", b"Host: a", UPGRADE, TO_WEBSOCKET), False),
        (head_of(b"GET / HTTP/1.0", UPGRADE, TO_WEBSOCKET), False),
    ],
)
def test_whether_it_is_for_a_websocket(head: RequestHead, wants_websocket: bool) -> None:
    assert head.wants_websocket == wants_websocket


def test_whether_the_client_waits_to_be_asked_for_the_body() -> None:
    assert get(b"Expect: 100-Continue").expects_continue
    assert not get(b"Expect: something").expects_continue
    assert not head_of(b"GET / HTTP/1.0", b"Expect: 100-continue").expects_continue


def test_hosts_are_optional_before_http_1_1() -> None:
    assert head_of(b"GET / HTTP/1.0").headers == []


def with_field(*fields: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: a", *fields, b"", b""])


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"\x16\x03\x01", 400, "not an HTTP/1.1 request"),
        (b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "not an HTTP/1.1 request"),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "not an HTTP/1.1 request"),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400, "not an HTTP/1.1 request"),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "HTTP/2.0 is not supported"),
        (b"GET / HTTP/1.1\n" + HOST + b"\n", 400, "does not end with CR LF"),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "does not end with CR LF"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "must be a Host"),
        (with_field(b"Host: a"), 400, "several headers host"),
        (with_field(b"X : a"), 400, "not an HTTP/1.1 request"),
        (with_field(b"X: a", b" folded"), 400, "not an HTTP/1.1 request"),
        (with_field(b"X: a\rb"), 400, "not an HTTP/1.1 request"),
        (with_field(b"X: a\x00b"), 400, "not an HTTP/1.1 request"),
        (with_field(b"Content-Length: +5"), 400, "not a number of bytes"),
        (with_field(b"Content-Length: 5, 5"), 400, "not a number of bytes"),
        (with_field(b"Content-Length: "), 400, "not a number of bytes"),
        (with_field(b"Content-Length: " + b"9" * 20), 400, "not a number of bytes"),
        (with_field(b"Content-Length: 5", b"content-length: 5"), 400, "several headers"),
        (with_field(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400, "given twice"),
        (with_field(b"Transfer-Encoding: gzip, chunked"), 501, "Transfer-Encoding"),
        (with_field(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, "several"),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0"),
        (with_field(b"X: " + b"x" * MAX_BYTES), 431, "larger than 1000 bytes"),
        (b"x" * (MAX_BYTES + 1), 431, "larger than 1000 bytes"),
    ],
)
def test_a_head_that_is_refused(data: bytes, status: int, said: str) -> None:
    found, message = refusal_of(data)
    assert found == status
    assert said in message


# -- bodies ---------------------------------------------------------------------------------------

CHUNKED = with_field(b"Transfer-Encoding: chunked")


def body_after(head: bytes, *pieces: bytes) -> tuple[bytes, bool, bytes]:
    """The body that comes in these pieces, whether that is all of it, and what is left."""
    buffer = bytearray(head)
    found = read_head(buffer, MAX_BYTES)
    assert found is not None
    body, data = body_of(found), b""
    for piece in (b"", *pieces):
        buffer += piece
        while part := body.take(buffer):
            data += part
    return data, body.complete, bytes(buffer)


def test_a_body_of_a_known_length_ends_where_it_says() -> None:
    head = with_field(b"Content-Length: 5")
    assert body_after(head, b"he", b"llo", b"GET /") == (b"hello", True, b"GET /")
    assert body_after(head, b"hell") == (b"hell", False, b"")
    assert body_after(with_field(), b"GET /") == (b"", True, b"GET /")


@pytest.mark.parametrize(
    "sent",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"1\r\nh\r\n0004\r\nello\r\n00\r\n\r\n",
        b"5;name=value\r\nhello\r\n0;x\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\r\nZ:\r\n\r\n",
        b"a\r\nhello\r\nhel\r\n1\r\nl\r\n0\r\n\r\n",
    ],
)
def test_a_body_in_chunks_ends_after_its_trailers(sent: bytes) -> None:
    whole = b"hello\r\nhell" if sent[:1] == b"a" else b"hello"
    assert body_after(CHUNKED, sent + b"GET /") == (whole, True, b"GET /")
    bytewise = [bytes([byte]) for byte in sent]
    assert body_after(CHUNKED, *bytewise) == (whole, True, b"")


def test_tiny_chunks_are_not_all_read_at_once() -> None:
    buffer = bytearray(CHUNKED + b"1\r\nx\r\n" * 20_000)
    head = read_head(buffer, MAX_BYTES)
    assert head is not None
    assert len(body_of(head).take(buffer)) <= 1000


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"x\r\n", 400, "hexadecimal"),
        (b"-5\r\nhello", 400, "hexadecimal"),
        (b"0x5\r\nhello", 400, "hexadecimal"),
        (b"5 \r\nhello", 400, "hexadecimal"),
        (b"5\nhello", 400, "hexadecimal"),
        (b"1" * 17 + b"\r\n", 400, "hexadecimal"),
        (b"5;" + b"x" * 1100, 400, "too long"),
        (b"5\r\nhello!\r\n", 400, "longer than its size"),
        (b"5\r\nhello\n", 400, "longer than its size"),
        (b"0\r\nX y\r\n\r\n", 400, "not a header"),
        (b"0\r\nX: y\n\n", 400, "does not end with CR LF"),
        (b"0\r\nContent-Length: 5\r\n\r\n", 400, "again"),
        (b"0\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n", 400, "again"),
        (b"0\r\nX: " + b"x" * TRAILER_MAX_BYTES, 431, "larger"),
    ],
)
def test_a_body_that_is_refused(sent: bytes, status: int, said: str) -> None:
    found, message = refusal_of(CHUNKED + sent)
    assert found == status
    assert said in message


# -- refused requests -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "path", "headers"),
    [
        (b"GET /a?b HTTP/1.1\r\nX: y\r\n\r\nrest", "/a", [(b"x", b"y")]),
        (b"GET /a HTTP/1.1\r\nX : y\r\nnothing", "/a", [(b"x ", b"y"), (b"nothing", b"")]),
        (b"\x16\x03", "", []),
        (b"", "", []),
    ],
)
def test_what_can_be_made_out_of_a_request_that_was_refused(
    data: bytes, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    assert what_was_asked(bytearray(data)) == (path, headers)
