"""Hostile requests, and bodies that are not JSON. Data only: `test_hostile_inputs.py` sends them.

The rest of the corpus: `hostile_types.py`, `hostile_sizes.py`, `hostile_http.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

DEEP = 100_000
HUGE = 10**30
MEGABYTE = 10**6


class Case(NamedTuple):
    """One request, as bytes on the wire, and what must come of it.

    `statuses`: of the first answer. `answers`: how many there must be; None: any number.
    0: none, the connection is closed. `is_raw`: it is not HTTP, or hardly. `reaches`: it is
    only odd, and for the engine to judge.
    """

    name: str
    data: bytes
    path: str = "/"
    statuses: frozenset[int] = frozenset({400})
    answers: int | None = 1
    is_raw: bool = False
    reaches: bool = False


def request(
    method: str, path: str, body: bytes = b"", *, headers: bytes = b"Content-Type: application/json"
) -> bytes:
    lines = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
    length = b"Content-Length: %d\r\n" % len(body) if body or method == "POST" else b""
    return lines + length + (headers + b"\r\n" if headers else b"") + b"\r\n" + body


def post(name: str, path: str, body: bytes, *statuses: int, headers: bytes = b"X-A: b") -> Case:
    data = request("POST", path, body, headers=headers)
    return Case(f"{path}: {name}", data, path, frozenset(statuses or {400}))


def get(name: str, path: str, *statuses: int, headers: bytes = b"", method: str = "GET") -> Case:
    data = request(method, path, headers=headers)
    return Case(f"{method} {name}", data, path, frozenset(statuses or {404}))


# -- bodies ---------------------------------------------------------------------------------------

MESSAGES = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/audio/speech": {"input": "Hi"},
    "/v1/images/generations": {"prompt": "Hi"},
    "/v1/chat/completions/input_tokens": {"messages": MESSAGES},
    "/completion": {"prompt": "Hi"},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/tokenize": {"content": "Hi"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": MESSAGES},
    "/embedding": {"content": "Hi"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/messages": {"messages": MESSAGES},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/gateway/explain": {"messages": MESSAGES},
}
# What these do not know is dropped on the way to an engine: only their own fields can do harm.
OLLAMA: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": MESSAGES},
    "/api/generate": {"prompt": "Hi"},
    "/api/embed": {"input": "Hi"},
    "/api/embeddings": {"prompt": "Hi"},
    "/api/show": {},
}


def good(path: str, **fields: Any) -> bytes:
    return json.dumps({"model": "m", **(GOOD | OLLAMA)[path], **fields}).encode()


def with_member(path: str, member: bytes) -> bytes:
    """The good body with one more member, as it stands."""
    return good(path)[:-1] + b", " + member + b"}"


# Whole bodies that are no JSON object in UTF-8.
NO_OBJECTS: dict[str, bytes] = {
    "empty": b"",
    "white space": b" \r\n\t ",
    "an array": b"[]",
    "an array of objects": b'[{"model":"m"}]',
    "a string": b'"model"',
    "a number": b"1",
    "null": b"null",
    "cut off": b'{"model":"m","messages":[{"role":"us',
    "single quotes": b"{'model':'m'}",
    "a form": b"model=m&messages=Hi&prompt=Hi&input=Hi",
    "XML": b'<?xml version="1.0"?><model>m</model>',
    "NUL bytes": b"\x00" * 64,
    "deep arrays": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "gzip": bytes.fromhex("1f8b0800000000000003ab56ca2c4b2d2a56b2520000d7e2aa4d0b000000"),
}
# What is done to a good body.
SPOILT: dict[str, Any] = {
    "garbage after it": lambda body: body + b" x",
    "a second object": lambda body: body + body,
    "a NUL after it": lambda body: body + b"\x00",
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "UTF-32": lambda body: body.decode().encode("utf-32"),
    "a comment": lambda body: b"/* */" + body,
    "a comma too many": lambda body: body[:-1] + b",}",
    "the end missing": lambda body: body[:-1],
}
# Members that are added to a good body. None of them is a field that the gateway knows.
MEMBERS: dict[str, bytes] = {
    "NaN": b'"x": NaN',
    "Infinity": b'"x": Infinity',
    "-Infinity": b'"x": -Infinity',
    "1e999": b'"x": 1e999',
    "1e999 inside": b'"x": {"y": [1e999]}',
    "10^400": b'"x": 1' + b"0" * 400,
    "10^100000": b'"x": 1' + b"0" * 100_000,
    "a leading zero": b'"x": 01',
    "hexadecimal": b'"x": 0x10',
    "invalid UTF-8": b'"x": "\xff\xfe"',
    "invalid UTF-8 in a name": b'"\xff": 1',
    "overlong UTF-8": b'"x": "\xc0\xaf"',
    "a surrogate in UTF-8": b'"x": "\xed\xa0\x80"',
    "a lone surrogate": b'"x": "\\ud800"',
    "a lone second surrogate": b'"x": "\\udc00"',
    "a lone surrogate before text": b'"x": "\\ud800abcdef"',
    "a control character": b'"x": "a\x00b"',
    "a line feed in a text": b'"x": "a\nb"',
    "an unknown escape": b'"x": "\\x41"',
    "deep arrays": b'"x": ' + b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'"x": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a second model": b'"model": "m"',
    "a second model in other letters": b'"\\u006dodel": "m"',
    "a second model in mixed letters": b'"mod\\u0065l": null',
    "an unknown field twice": b'"x": 1, "x": 2',
    "an unknown field twice in other letters": b'"x": 1, "\\u0078": 2',
    "a name without quotes": b"x: 1",
}


def bodies() -> Iterator[Case]:
    for path in (*[*GOOD][::3], *OLLAMA):  # some of each kind: it is the same parser
        for name, body in NO_OBJECTS.items():
            yield post(name, path, body)
        for name, spoil in SPOILT.items():
            yield post(name, path, spoil(good(path)))
    for path in GOOD:
        for name, member in MEMBERS.items():
            yield post(name, path, with_member(path, member))
