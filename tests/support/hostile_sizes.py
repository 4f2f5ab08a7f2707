"""Hostile requests: too deep, too many, too large, and names that are not valid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.support.hostile_cases import DEEP, MEGABYTE, Case, get, good, post, with_member

GIGANTIC = ("1e999", "1" + "0" * 400, "-1e30", "9223372036854775808", "1e30", "9" * 100_000)


def sizes() -> Iterator[Case]:
    chat, deep = "/v1/chat/completions", b"[" * DEEP + b"]" * DEEP
    inside = b'{"model": "m", "messages": [{"role": "user", "content": %b}]}'
    yield post("deep content", chat, inside % deep)
    yield post("deep parts", chat, inside % (b'[{"type": "text", "x": %b}]' % deep))
    yield post("a deep message", chat, b'{"model":"m","messages":[%b]}' % deep)
    for known in (b"tools", b"chat_template_kwargs", b"response_format", b"metadata"):
        yield post(f"deep {known.decode()}", chat, with_member(chat, b'"%b": [%b]' % (known, deep)))
        nested = b'{"a": %b}' % (b'{"a":' * DEEP + b"1" + b"}" * DEEP)
        given = b"[%b]" % nested if known == b"tools" else nested
        body = with_member(chat, b'"%b": %b' % (known, given))
        yield post(f"deep objects in {known.decode()}", chat, body)
    yield post("a deep prompt", "/v1/completions", b'{"model":"m","prompt":%b}' % deep)
    yield post("a deep input", "/v1/embeddings", b'{"model":"m","input":%b}' % deep)
    yield post("a deep input", "/v1/responses", b'{"model":"m","input":[{"content":%b}]}' % deep)
    yield post("a deep system", "/v1/messages", with_member("/v1/messages", b'"system":%b' % deep))
    many = b",".join([b'{"role":"user","content":""}'] * DEEP)
    yield post("10^5 messages", chat, b'{"model": "m", "messages": [%b]}' % many)
    bomb = b'{"model":"m","messages":[%b]}' % b",".join([b"{}"] * 10**6)
    yield post("10^6 messages", chat, bomb)
    yield post("10^6 messages", "/api/chat", bomb)
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
        for limit, value in itertools.product(fields, GIGANTIC):
            body = with_member(path, f'"{limit}": {value}'.encode())
            yield post(f"{limit} is {value[:20]}", path, body)
    for most in (2**31, 2**32 - 1, 2**62, 2**63 - 1):
        # A chat's is lowered.
        path = "/v1/completions"
        yield post(f"max_tokens is {most}", path, good(path, max_tokens=most))


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
        for path in (
            "/v1/chat/completions",
            "/tokenize",
            "/v1/messages",
            "/api/chat",
            "/api/show",
            "/gateway/explain",
        ):
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
