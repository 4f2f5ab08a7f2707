"""Reading HTTP/1.1 requests from bytes: heads, and the two framings of bodies. Pure.

What can be read in two ways is refused, so that a proxy in front of the gateway cannot be made to
see another request than the gateway does: a line that ends in a bare LF or CR, a folded header, a
length that is given twice, a space before a colon. What is accepted, h11 reads in the same way
(`tests/server/http/test_http1_against_h11.py`).

Why not httptools, which reads the engines' answers: it takes some of these, and does not say where
a request ends when another one follows it. It would not be faster: it reads a head of 8 headers in
4 µs of CPU, and the checks would be needed all the same (6 µs); here it is 11 µs in all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

import msgspec

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.types import Header, first_headers

TRAILER_MAX_BYTES = 16 * 1024
_CHUNKS_AT_ONCE = 200  # about 0.6 ms; they may be tiny, and others have their turn between
_CHUNK_LINE_MAX_BYTES = 1024  # nobody uses chunk extensions
_LENGTH_MAX_DIGITS = 19
_FIRST_PRINTABLE = 0x21
_READ_ANYWAY_BYTES = 16 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELDS = rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*"
_HEAD = re.compile(
    rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])\r\n(" + _FIELDS + rb")\r\n"
)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_FIELD = re.compile(rb"([^:]+):[ \t]*([^\r]*)\r\n")
_FIELDS_ONLY = re.compile(_FIELDS)


class RequestHead(msgspec.Struct, frozen=True):
    """`headers` have lower-case names, in the client's order; `first` has the first of each name.
    `length` is that of the body; None if it comes in chunks."""

    method: str
    target: bytes
    version: str
    headers: list[Header]
    first: Mapping[bytes, bytes]
    length: int | None
    keeps_alive: bool
    expects_continue: bool
    wants_websocket: bool


def read_head(buffer: bytearray, max_bytes: int, seen: int = 0) -> RequestHead | None:
    """Take a request's head off the buffer; None while it is not complete.

    Args:
        seen: how much of the buffer was there the last time, when it was not complete.

    Raises:
        ApiError: it is not HTTP/1.1, is larger than `max_bytes`, or can be read in two ways. The
            connection cannot be used after that.
    """
    unseen = seen - 3 if seen > 3 else 0  # the end of the head may have begun by then
    end = buffer.find(b"\r\n\r\n", unseen)
    if end < 0 or end + 4 > max_bytes:
        if buffer and buffer[0] < _FIRST_PRINTABLE:
            raise invalid("this is not an HTTP/1.1 request")
        if len(buffer) > max_bytes:
            raise _too_large(max_bytes)
        if buffer.find(b"\n\n", unseen) >= 0 or buffer.find(b"\n\r\n", unseen) >= 0:
            raise invalid("a line of the request does not end with CR LF")
        return None
    match = _HEAD.fullmatch(buffer, 0, end + 4)
    if match is None:
        raise invalid("this is not an HTTP/1.1 request")
    method, target, version, fields = match.groups()
    del match  # a bytearray that is looked into cannot be shortened
    head = _head(method.decode().upper(), target, version.decode(), fields)
    del buffer[: end + 4]
    return head


def what_was_asked(buffer: bytearray) -> tuple[str, list[Header]]:
    """The path and the headers of a request that was refused, as far as they can be made out; only
    good for the shape of the refusal."""
    first, *lines = bytes(buffer[:_READ_ANYWAY_BYTES]).split(b"\r\n\r\n")[0].split(b"\r\n")
    words = first.split(b" ")
    path = words[1].partition(b"?")[0].decode("latin-1") if len(words) > 1 else ""
    parts = (line.partition(b":") for line in lines)
    return path, [(name.lower(), value.strip()) for name, _, value in parts]


def _head(method: str, target: bytes, version: str, fields: bytes) -> RequestHead:
    headers = [(name.lower(), value) for name, value in _FIELD.findall(fields)]
    if b" \r" in fields or b"\t\r" in fields:  # which nearly no client writes
        headers = [(name, value.rstrip(b" \t")) for name, value in headers]
    known = first_headers(headers)
    if len(known) < len(headers):
        _refuse_repeated(headers)
    is_newest = version == "1.1"
    if not is_newest and version != "1.0":
        message = f"HTTP/{version} is not supported; use 1.1"
        raise ApiError(505, message, code="invalid_http", closes_connection=True)
    if is_newest and b"host" not in known:
        raise invalid("there must be a Host header")
    options = _options(headers) if b"connection" in known else _NONE
    length = _length_of(known, version)
    return RequestHead(
        method,
        target,
        version,
        headers,
        known,
        length,
        is_newest and b"close" not in options,
        is_newest and b"expect" in known and known[b"expect"].lower() == b"100-continue",
        b"upgrade" in options
        and known.get(b"upgrade", b"").lower() == b"websocket"
        and (method, version, length) == ("GET", "1.1", 0),
    )


def _refuse_repeated(headers: list[Header]) -> None:
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise invalid(f"there are several headers {name.decode()}")


def _length_of(known: dict[bytes, bytes], version: str) -> int | None:
    """How many bytes the body has; None if it comes in chunks."""
    length = known.get(b"content-length")
    if b"transfer-encoding" in known:
        if known[b"transfer-encoding"].lower() != b"chunked":
            message = "the only Transfer-Encoding that is supported is `chunked`"
            raise ApiError(501, message, code="invalid_http", closes_connection=True)
        if length is not None:
            message = "the body's length is given twice: Content-Length and Transfer-Encoding"
            raise invalid(message)
        if version == "1.0":
            raise invalid("HTTP/1.0 has no Transfer-Encoding")
        return None
    if length is None:
        return 0
    if not length.isdigit() or len(length) > _LENGTH_MAX_DIGITS:
        raise invalid("Content-Length is not a number of bytes")
    return int(length)


def _options(headers: list[Header]) -> set[bytes]:
    """What the `Connection` headers say."""
    said = b",".join(value for name, value in headers if name == b"connection")
    return {option.strip() for option in said.lower().split(b",")}


_ONCE = {b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect"}
_FRAMING = {b"content-length", b"transfer-encoding"}
_NONE: set[bytes] = set()


class Body(Protocol):
    """What is left of a request's body in the connection. `complete` once there is nothing.
    `pauses`: it gave less than there is, as that would have taken long."""

    complete: bool
    pauses: bool

    def take(self, buffer: bytearray) -> bytes:
        """A part of it that has arrived, off the buffer; `b""`: none yet, or none any more.

        Raises:
            ApiError: it is not what its framing says.
        """
        ...


def body_of(head: RequestHead) -> Body:
    return ChunkedBody() if head.length is None else SizedBody(head.length)


class SizedBody:
    """A body of a known length."""

    pauses = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0

    def take(self, buffer: bytearray) -> bytes:
        left = self._left - len(buffer)
        if left >= 0:
            data = bytes(buffer)
            buffer.clear()
        else:  # the next request follows
            data = bytes(buffer[: self._left])
            del buffer[: self._left]
            left = 0
        self._left, self.complete = left, not left
        return data


class ChunkedBody:
    """A body in chunks, each behind its size. Trailers are checked and dropped."""

    def __init__(self) -> None:
        self.complete = self.pauses = False
        self._left = 0  # of the chunk that has begun
        self._in_chunk = False  # its last CR LF is still to come
        self._in_trailer = False

    def take(self, buffer: bytearray) -> bytes:
        pieces: list[bytes] = []
        used = 0
        while not self.complete and len(pieces) < _CHUNKS_AT_ONCE:
            if self._left:
                piece = bytes(buffer[used : used + self._left])
                if not piece:
                    break
                pieces.append(piece)
                used += len(piece)
                self._left -= len(piece)
            elif self._in_chunk:
                if len(buffer) - used < 2:
                    if not b"\r".startswith(buffer[used:]):
                        raise invalid("a chunk of the body is longer than its size says")
                    break
                if buffer[used : used + 2] != b"\r\n":
                    raise invalid("a chunk of the body is longer than its size says")
                used += 2
                self._in_chunk = False
            elif self._in_trailer:
                end = self._end_of_trailer(buffer, used)
                if end is None:
                    break
                used = end
                self.complete = True
            else:
                end = self._begin_chunk(buffer, used)
                if end is None:
                    break
                used = end
        del buffer[:used]
        self.pauses = len(pieces) == _CHUNKS_AT_ONCE and not self.complete
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _begin_chunk(self, buffer: bytearray, start: int) -> int | None:
        """Where the chunk's bytes begin; None while its size is not complete."""
        end = buffer.find(b"\n", start, start + _CHUNK_LINE_MAX_BYTES)
        if end < 0:
            if len(buffer) - start >= _CHUNK_LINE_MAX_BYTES:
                raise invalid("the size of a chunk of the body is too long")
            return None
        match = _CHUNK_LINE.fullmatch(buffer, start, end + 1)
        if match is None:
            raise invalid("the size of a chunk of the body is not a hexadecimal number")
        self._left = int(match[1], 16)
        self._in_chunk = self._left > 0
        self._in_trailer = self._left == 0
        return end + 1

    def _end_of_trailer(self, buffer: bytearray, start: int) -> int | None:
        """Where the next request begins; None while the trailer is not complete."""
        if buffer[start : start + 2] == b"\r\n":
            return start + 2
        end = buffer.find(b"\r\n\r\n", start)
        if (end if end >= 0 else len(buffer)) - start > TRAILER_MAX_BYTES:
            raise _too_large(TRAILER_MAX_BYTES)
        if end < 0:
            if buffer.find(b"\n\n", start) >= 0 or buffer.find(b"\n\r\n", start) >= 0:
                raise invalid("a line after the body does not end with CR LF")
            return None
        fields = bytes(buffer[start : end + 2])
        if _FIELDS_ONLY.fullmatch(fields) is None:
            raise invalid("what follows the body's last chunk is not a header")
        if _FRAMING & {name.lower() for name, _ in _FIELD.findall(fields)}:
            raise invalid("the length of the body is given again after its last chunk")
        return end + 4


def invalid(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_http", closes_connection=True)


def _too_large(max_bytes: int) -> ApiError:
    message = f"the headers are larger than {max_bytes} bytes (max_header_size)"
    return ApiError(431, message, code="headers_too_large", closes_connection=True)
