"""The corpus of hostile requests: data only. `tests/test_hostile_inputs.py` sends them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

DEEP = 100_000
HUGE = 10**30
MEGABYTE = 10**6


class Case(NamedTuple):
    """One request, as bytes on the wire, and what must come of it.

    `statuses`: of the first answer. `answers`: how many there must be; None: any number.
    0: none, the connection is closed. `by_app`: the answer is the gateway's own, with an error in
    the shape of the path's family. `reaches`: it is only odd, and for the engine to judge.
    """

    name: str
    data: bytes
    path: str = "/"
    statuses: frozenset[int] = frozenset({400})
    answers: int | None = 1
    by_app: bool = True
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


def good(path: str, **fields: Any) -> bytes:
    return json.dumps({"model": "m", **GOOD[path], **fields}).encode()


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
    "a BOM": lambda body: b"\xef\xbb\xbf" + body,
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
    for number, path in enumerate(GOOD):
        if number % 3 == 0:  # one of each kind: it is the same parser
            for name, body in NO_OBJECTS.items():
                yield post(name, path, body)
            for name, spoil in SPOILT.items():
                yield post(name, path, spoil(good(path)))
        for name, member in MEMBERS.items():
            yield post(name, path, with_member(path, member))


# -- wrong types ----------------------------------------------------------------------------------

NUMBER = ["0.5", True, [], {}, [1]]
INTEGER = ["1000", 1.5, 1e300, True, [], {}, HUGE, -HUGE]
BOOLEAN = ["true", 1, 0, [], {}]
STRING = [1, True, [], {}]
TEXTS = [1, True, {}, [1], [None], [[]]]
OBJECT = ["x", 1, True, []]
OBJECTS = ["x", 1, True, {}, [1], ["x"], [[]], [None]]
CHOICE = [1, True, []]  # a word, or an object
MESSAGE_LIST = [
    "x", 1, True, {}, None, [], [1], ["x"], [None], [[]],
    [{"role": 1, "content": "x"}], [{"role": [], "content": "x"}], [{"role": "user", "content": 1}],
    [{"role": "user", "content": True}], [{"role": "user", "content": [1]}],
    [{"role": "user", "content": [[]]}], [{"role": "user", "content": [None]}],
    [{"role": "user", "content": [{"type": 1}]}],
    [{"role": "user", "content": [{"type": "text", "text": []}]}],
    [{"role": "assistant", "tool_calls": {}}], [{"role": "assistant", "tool_calls": ["x"]}],
    [{"role": "tool", "tool_call_id": 1, "content": "x"}], [*MESSAGES, 1], [*MESSAGES, None],
]  # fmt: skip
PROMPT = [1, True, None, [], {}, [None], [True], [1.5], [[None]], [[[1]]]]
TOKENS = [*INTEGER, -3]

SAMPLING: dict[str, list[Any]] = {
    **dict.fromkeys(("temperature", "top_p", "top_k", "frequency_penalty"), NUMBER),
    **dict.fromkeys(("presence_penalty", "min_p", "repeat_penalty"), NUMBER),
    "seed": INTEGER,
    "max_tokens": TOKENS,
    "n_predict": TOKENS,
    "stream": BOOLEAN,
    "stop": TEXTS,
    "stream_options": OBJECT,
    "logit_bias": ["x", 1, True],
    "cache_prompt": BOOLEAN,
    "grammar": STRING,
    "id_slot": [*INTEGER, "../../x", -2],
    "user": STRING,
}
CHATS = {
    **SAMPLING,
    "messages": MESSAGE_LIST,
    "max_completion_tokens": TOKENS,
    "n": [*INTEGER, 0, -1],
    "logprobs": BOOLEAN,
    "top_logprobs": INTEGER,
    "tools": OBJECTS,
    "tool_choice": CHOICE,
    "parallel_tool_calls": BOOLEAN,
    "response_format": OBJECT,
    "chat_template_kwargs": OBJECT,
    "reasoning_effort": STRING,
}
INPUT = [*PROMPT]
WRONG: dict[str, dict[str, list[Any]]] = {
    "/v1/chat/completions": CHATS,
    **{
        path: {"messages": MESSAGE_LIST[:9], "tools": OBJECTS}
        for path in ("/v1/chat/completions/input_tokens", "/apply-template", "/gateway/explain")
    },
    "/v1/completions": {
        **SAMPLING, "prompt": PROMPT, "echo": BOOLEAN, "suffix": STRING,
        "n": [*INTEGER, 0], "best_of": [*INTEGER, 0],
    },
    "/completion": {**SAMPLING, "prompt": PROMPT},
    "/infill": {
        **SAMPLING, "input_prefix": STRING, "input_suffix": STRING, "input_extra": OBJECTS,
    },
    "/v1/responses": {
        "input": ["", 1, True, None, {}, [], [1], ["x"]][1:], "instructions": STRING,
        "stream": BOOLEAN, "temperature": NUMBER, "max_output_tokens": TOKENS, "tools": OBJECTS,
        "metadata": OBJECT, "previous_response_id": STRING, "store": BOOLEAN, "reasoning": OBJECT,
    },
    "/v1/messages": {
        "messages": MESSAGE_LIST, "system": [1, True, {}, [1]], "max_tokens": TOKENS,
        "stream": BOOLEAN, "temperature": NUMBER, "stop_sequences": ["x", *TEXTS],
        "tools": OBJECTS, "tool_choice": OBJECT, "thinking": OBJECT, "metadata": OBJECT,
    },
    "/v1/messages/count_tokens": {"messages": MESSAGE_LIST, "system": [1, True, {}, [1]]},
    "/v1/embeddings": {"input": INPUT, "encoding_format": STRING, "dimensions": INTEGER},
    "/embedding": {"content": INPUT},
    "/v1/rerank": {
        "query": [*STRING, None], "documents": ["x", 1, {}, [1], [None], [[]]], "top_n": INTEGER,
    },
    "/tokenize": {
        "content": [1, True, None, [], {}, [None], [[]], [1.5]], "add_special": BOOLEAN,
        "with_pieces": BOOLEAN,
    },
    "/detokenize": {"tokens": ["x", 1, None, {}, ["x"], [1.5], [None], [[1]], [HUGE]]},
    "/v1/audio/speech": {"input": [1, True, None, [], {}], "voice": CHOICE, "speed": NUMBER},
    "/v1/images/generations": {
        "prompt": [1, True, None, [], {}], "n": [*INTEGER, 0], "size": STRING,
    },
}  # fmt: skip
NO_NAMES: list[Any] = [None, "", 1, True, [], {}, ["m"], {"id": "m"}]


def wrong_types() -> Iterator[Case]:
    for path, fields in WRONG.items():
        for name, values in fields.items():
            for value in values:
                shown = json.dumps(value)[:40]
                yield post(f"{name} is {shown}", path, good(path, **{name: value}))
        for value in NO_NAMES:
            # Where there is one model only, llama.cpp's own clients need not name it.
            if value is not None or path.startswith(("/v1/chat", "/v1/comp", "/v1/mess")):
                yield post(f"model is {value!r}", path, good(path, model=value))


# -- sizes ----------------------------------------------------------------------------------------


GIGANTIC = ("1e999", "1" + "0" * 400, "-1e30", "9223372036854775808", "1e30", "9" * 100_000)


def sizes() -> Iterator[Case]:
    chat, deep = "/v1/chat/completions", b"[" * DEEP + b"]" * DEEP
    inside = b'{"model": "m", "messages": [{"role": "user", "content": %b}]}'
    yield post("deep content", chat, inside % deep)
    yield post("deep parts", chat, inside % (b'[{"type": "text", "x": %b}]' % deep))
    yield post("a deep message", chat, b'{"model":"m","messages":[%b]}' % deep)
    for field in (b"tools", b"chat_template_kwargs", b"response_format", b"metadata"):
        yield post(f"deep {field.decode()}", chat, with_member(chat, b'"%b": [%b]' % (field, deep)))
        value = b'{"a": %b}' % (b'{"a":' * DEEP + b"1" + b"}" * DEEP)
        yield post(f"deep objects in {field.decode()}", chat, with_member(
            chat, b'"%b": %b' % (field, b"[%b]" % value if field == b"tools" else value)
        ))  # fmt: skip
    yield post("a deep prompt", "/v1/completions", b'{"model":"m","prompt":%b}' % deep)
    yield post("a deep input", "/v1/embeddings", b'{"model":"m","input":%b}' % deep)
    yield post("a deep input", "/v1/responses", b'{"model":"m","input":[{"content":%b}]}' % deep)
    yield post("a deep system", "/v1/messages", with_member("/v1/messages", b'"system":%b' % deep))
    many = b",".join([b'{"role":"user","content":""}'] * DEEP)
    yield post("10^5 messages", chat, b'{"model": "m", "messages": [%b]}' % many)
    yield post("10^6 messages", chat, b'{"model":"m","messages":[%b]}' % b",".join([b"{}"] * 10**6))
    yield post("10^6 arrays", chat, b'{"model":"m","messages":[%b]}' % b",".join([b"[]"] * 10**6))
    names = b",".join(b'"%d":0' % number for number in range(DEEP))
    yield post("10^5 fields and one twice", chat, with_member(chat, names + b',"99999":1'))
    tools = b",".join([b'{"type":"function","function":{"name":"f"}}'] * DEEP)
    yield post("10^5 tools", chat, with_member(chat, b'"tools": [%b]' % tools))
    numbers = with_member(chat, b'"x": [%b]' % b",".join([b"1"] * (2 * 10**6)))
    yield post("2 * 10^6 numbers", chat, numbers)
    yield post("10^6 tokens", "/completion", good("/completion", prompt=[1] * 10**6))
    text = [{"role": "user", "content": "a " * 2_500_000}]
    yield post("5 MB of text", chat, good(chat, messages=text))
    for path, fields in {
        chat: ("max_tokens", "max_completion_tokens", "n_predict"),
        "/v1/completions": ("max_tokens", "n_predict"),
        "/completion": ("n_predict", "max_tokens"),
        "/v1/responses": ("max_output_tokens",),
        "/v1/messages": ("max_tokens",),
        "/gateway/explain": ("max_tokens",),
    }.items():
        for name, value in itertools.product(fields, GIGANTIC):
            body = with_member(path, f'"{name}": {value}'.encode())
            yield post(f"{name} is {value[:20]}", path, body)
    for most in (2**31, 2**32 - 1, 2**62, 2**63 - 1):
        yield post(f"max_tokens is {most}", chat, good(chat, max_tokens=most))


# -- names ----------------------------------------------------------------------------------------

NAMES: dict[str, str] = {
    "of a megabyte": "m" * MEGABYTE,
    "a megabyte after the mark": "m@" + "9" * MEGABYTE,
    "a megabyte variant": "m:" + "x" * MEGABYTE,
    "that leads up": "../../../etc/passwd",
    "that leads up from a model": "m/../../x",
    "that leads up with backslashes": "..\\..\\x",
    "that leads up in percents": "%2e%2e%2fx",
    "absolute": "/etc/passwd",
    "a file URL": "file:///etc/passwd",
    "with a NUL": "m\x00",
    "with a line end": "m\r\nX-Injected: 1",
    "of another alphabet": "\u043c",
    "right to left": "\u202em",
    "a blank before it": " m",
    "a blank after it": "m ",
    "in capitals": "M",
    "a variant that leads up": "m:../../x",
    "no variant": "m:",
    "no context": "m@",
    "a negative context": "m@-1",
    "a context of digits elsewhere": "m@\u0663",
    "a context too large": "m@99999999999",
    "a float": "m@1e3",
    "a template": "{{7*7}}",
    "a format": "%s%s%s%n",
    "SQL": "' OR 1=1 --",
    "a shell": "$(reboot)",
}


def quoted(name: str) -> str:
    return "".join(f"%{byte:02x}" for byte in name.encode())


def names() -> Iterator[Case]:
    for what, name in NAMES.items():
        for path in ("/v1/chat/completions", "/tokenize", "/v1/messages", "/gateway/explain"):
            yield post(f"a name {what}", path, good(path, model=name), 400, 404)
        if len(name) < MEGABYTE:
            part = quoted(name)
            for path in ("/props?model={}", "/slots?model={}", "/v1/models/{}", "/models/{}",
                         "/gateway/models/{}", "/upstream/{}/props"):  # fmt: skip
                yield get(f"{path}, a name {what}", path.format(part), 400, 404)
            for action in ("load", "unload", "pin"):
                path = f"/gateway/models/{part}/{action}"
                yield post(f"a name {what}", path, b"", 400, 404)
    for what, path in {
        "a raw way up": "/v1/models/../../etc/passwd",
        "a raw way up to a path": "/v1/models/../models/nix",
        "a half-encoded way up": "/v1/models/..%2f..%2fetc%2fpasswd",
        "a way up encoded twice": "/v1/models/%252e%252e%252fm",
    }.items():
        yield get(what, path, 400, 404)


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
    return Case(name, data, "/", frozenset(statuses or {400}), answers, by_app=False)


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
