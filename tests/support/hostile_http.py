"""Hostile requests: paths to engines, lengths that can be read in two ways, lines and headers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.support.hostile_cases import DEEP, MEGABYTE, Case, get, good, post

# -- one engine's own -----------------------------------------------------------------------------


def upstream() -> Iterator[Case]:
    for path in (
        "m/../x", "m/%2e%2e/x", "m/..%2f..%2fetc", "m/a/..%2fb", "m/%2E%2E%2Fx", "m/./x", "m/..",
        "m/a%2f..", "../m/x", "%2e%2e/m/x", "m%2f..%2fx", "nix/..", "m/..%5cx", "m/%2e%2e%5cx",
        "m/x%00", "m/%00", "m/x%0d%0aHost:%20y", "m/x%0ay", "m/..;/x",
    ):  # fmt: skip
        yield get(path, f"/upstream/{path}", 400, 404)
    for name in ("../../x", "/etc/x", "a/b", "..\\x", "..", "a\x00b", "x\n", "", 1, None, ["x"]):
        for target in ("slots/0?action=save", "slots/0?action=restore", "%73lots/0?action=save",
                       "slots%2f0?action=save"):  # fmt: skip
            body = json.dumps({"filename": name}).encode()
            yield post(f"filename {name!r}", f"/upstream/m/{target}", body, 400, 403)
    for target in (
        "slots/0?action=save&filename=../../x", "slots/0?action=save&filename=..%2fx",
        "slots/..%2f..%2fx?action=save", "slots/../0?action=save", "slots/%2e%2e?action=erase",
    ):  # fmt: skip
        yield post("a slot that leads up", f"/upstream/m/{target}", b"{}", 400, 403)
    yield post("two file names", "/upstream/m/slots/0?action=save",
               b'{"filename":"a","filename":"../b"}', 400, 403)  # fmt: skip


# -- HTTP -----------------------------------------------------------------------------------------

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT_BODY = good("/v1/chat/completions")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


def wire(name: str, data: bytes, *statuses: int, answers: int | None = 1) -> Case:
    return Case(name, data, "/", frozenset(statuses or {400}), answers, is_raw=True)


def framing() -> Iterator[Case]:
    """Bodies whose length can be read in two ways: what follows must not become a request."""
    length = b"Content-Length: %d\r\n" % len(CHAT_BODY)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT_BODY), CHAT_BODY)
    chunked = b"Transfer-Encoding: chunked\r\n"
    yield wire("CL.TE", HEAD + b"Content-Length: 4\r\n" + chunked + b"\r\n0\r\n\r\n" + SMUGGLED)
    yield wire("CL.TE, whole", HEAD + length + chunked + b"\r\n" + chunks + SMUGGLED)
    yield wire("TE.CL", HEAD + chunked + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED)
    yield wire("TE.CL, whole", HEAD + chunked + length + b"\r\n" + chunks + SMUGGLED)
    for first, second in ((b"5", b"6"), (b"0", b"44"), (b"44", b"0"), (b"5", b"05")):
        two = b"Content-Length: %b\r\nContent-Length: %b\r\n\r\n" % (first, second)
        yield wire(f"CL.CL {two!r}", HEAD + two + b"{}   " + SMUGGLED)
    for value in (
        b"-1", b"+5", b"0x5", b"5 5", b"5, 6", b"5,", b",5", b"1e1", b"5.0", b"", b" ", b"five",
        b"\xb2", b"9" * 5000, b"-9" * 100, b"5;", b"5\t5", b"0b11", b"1_0", b"\xd9\xa5",
    ):  # fmt: skip
        data = HEAD + b"Content-Length: %b\r\n\r\n" % value + b"{}   " + SMUGGLED
        yield wire(f"Content-Length: {value[:20]!r}", data, 400, 431)
    for value in (
        b"chunked, chunked", b"chunked, identity", b"identity", b"gzip, chunked", b"gzip",
        b"xchunked", b"chunkedx", b"chunked;q=1", b"\x0bchunked", b'"chunked"', b"", b"chunked,",
        b", chunked", b"chunked\x00", b"cow",
    ):  # fmt: skip
        data = HEAD + b"Transfer-Encoding: %b\r\n\r\n" % value + chunks + SMUGGLED
        yield wire(f"Transfer-Encoding: {value!r}", data, 400, 501)
    for second in (b"identity", b"cow", b"chunked"):
        data = HEAD + chunked + b"Transfer-Encoding: %b\r\n\r\n" % second + chunks + SMUGGLED
        yield wire(f"TE.TE {second!r}", data, 400, 501)
    for line in (
        b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked",
        b"Transfer-Encoding", b"Content-Length : 5", b"Content Length: 5", b": 5",
        b"Transfer-Encoding: chunked\rX: y", b"X: a\x00b", b"X: a\rb", b"X\x00: a", b"X\xff: a",
        b"(X): a", b"X{: a", b'"X": a',
    ):  # fmt: skip
        yield wire(f"the line {line!r}", HEAD + line + b"\r\n" + length + b"\r\n" + CHAT_BODY)
    # The end of the line before: h11 joins them, and the end of Host is no length.
    line = HEAD + b" Transfer-Encoding: x\r\n" + length
    folded = wire("a folded line", line + b"\r\n" + CHAT_BODY, 200, 400, 403)
    yield folded._replace(reaches=True)
    for size in (b"-1", b"+5", b"0x5", b" 5", b"", b"g", b"f" * 21, b"5\n", b"\xb2"):
        data = HEAD + chunked + b"\r\n%b\r\n{    \r\n0\r\n\r\n" % size + SMUGGLED
        yield wire(f"a chunk of size {size!r}", data, 400)
    yield wire("a chunk longer than its size", HEAD + chunked + b"\r\n2\r\n{}}}\r\n0\r\n\r\n")
    yield wire(
        "a chunk with a long extension", HEAD + chunked + b"\r\n5;" + b"x" * 50_000, 400, 431
    )
    yield wire("a huge trailer", HEAD + chunked + b"\r\n0\r\nX: " + b"x" * 50_000, 400, 431)
    yield wire(
        "a body of 10^30 bytes", HEAD + b"Content-Length: 1%b\r\n\r\n{" % (b"0" * 30), 400, 413
    )


def requests() -> Iterator[Case]:
    """Request lines and headers."""
    host = b"Host: localhost\r\n\r\n"
    for line in (
        b"GET /health", b"GET /health HTTP/0.9", b"GET  /health HTTP/1.1", b"GET /health  HTTP/1.1",
        b"GET\t/health HTTP/1.1", b" GET /health HTTP/1.1", b"GET /health HTTP/1.1 x",
        b"GET /he alth HTTP/1.1", b"GET /health\x00 HTTP/1.1", b"GET /health HTTP/2.0",
        b"GET /health HTTP/1.10", b"GET /health http/1.1", b"GET /health HTTP/11",
        b"GET /h\xffalth HTTP/1.1", b"G\xffT /health HTTP/1.1", b"G(T /health HTTP/1.1", b"GET",
        b"HTTP/1.1 200 OK", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00",
        b"GET /x\rX: y HTTP/1.1", b"POST /v1/models\r\nX: y HTTP/1.1",
    ):  # fmt: skip
        yield wire(f"the request {line!r}", line + b"\r\n" + host, 400, 404, 505)
    get_health = b"GET /health HTTP/1.1\r\n"
    yield wire("no Host", get_health + b"\r\n")
    yield wire("two Hosts", get_health + b"Host: a\r\nHost: b\r\n\r\n")
    yield wire("a header of 1 MB", get_health + b"X: " + b"x" * MEGABYTE + b"\r\n" + host, 400, 431)
    yield wire("a name of 1 MB", get_health + b"x" * MEGABYTE + b": x\r\n" + host, 400, 431)
    yield wire("10^5 headers", get_health + b"X: y\r\n" * DEEP + host, 400, 431)
    long = b"GET /" + b"x" * MEGABYTE + b" HTTP/1.1\r\n"
    yield wire("a target of 1 MB", long + host, 400, 414, 431)
    yield wire("half a header", get_health + b"Host: localhost\r\nX:", 0, 400, 408)
    for name in ("http://other/v1/models", "https://localhost/health", "localhost:80", "file:///x"):
        yield get(f"the target {name}", name, 400, 404)
    for path in (
        "/%", "/%zz", "/%00", "/%ff", "/%c0%af", "/v1/models/%00", "/v1/models/%", "//health",
        "//evil.example/v1/models", "/v1//models", "/v1/models//", "/v1/./models", "/v1/../health",
        "/v1/models%2f..%2f..%2fhealth", "/health%00", "/health%20", "/HEALTH", "/health;x=y",
        "/v1/models/x%0d%0aSet-Cookie:%20a=b", "/%0d%0aX:%20y", "/.env", "/.git/config",
        "/v1\\models", "/" + "a/" * 5000, "/api/%00", "/v1/messages/%00",
    ):  # fmt: skip
        yield get(f"the path {path[:40]}", path, 400, 404)
    for method in ("TRACE", "CONNECT", "FOO", "PROPFIND", "PURGE", "M-SEARCH", "post2", "DELETE"):
        yield get("/v1/chat/completions", "/v1/chat/completions", 405, 501, method=method)
    for value in (b"urgent", b"-1", b"9" * 5000, b"interactive, batch", b"\xff", b"{}", b";"):
        for path in ("/v1/chat/completions", "/v1/messages", "/tokenize"):
            yield post(f"X-Gateway-Priority: {value[:20]!r}", path, good(path),
                       headers=b"X-Gateway-Priority: " + value)  # fmt: skip
    for coding in (b"gzip", b"br", b"deflate", b"zstd", b"gzip, gzip", b"x", b"chunked"):
        for path in ("/v1/chat/completions", "/v1/messages", "/upstream/m/completion"):
            yield post(f"Content-Encoding: {coding.decode()}", path, CHAT_BODY, 415,
                       headers=b"Content-Encoding: " + coding)  # fmt: skip
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'
    for kind in (
        b"multipart/form-data; boundary=x", b"multipart/form-data", b"text/plain",
        b"application/x-www-form-urlencoded", b"application/xml", b"", b"\xff",
    ):  # fmt: skip
        yield post(f"a form as {kind!r}", "/v1/chat/completions", form, 400, 415,
                   headers=b"Content-Type: " + kind)  # fmt: skip
