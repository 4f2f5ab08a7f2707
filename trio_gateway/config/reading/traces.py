"""Reader for `server.traces`: where the gateway's spans go."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from trio_gateway.config.reading import fields
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.schema import Secret, TracesConfig

EXAMPLE = "http://127.0.0.1:4318/v1/traces"
_URL = f'the full URL of a collector for OTLP over HTTP, such as "{EXAMPLE}"'
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
# They say what is sent and how, which is the gateway's to know.
_OWN = frozenset(
    {
        "host", "content-type", "content-length", "content-encoding", "transfer-encoding",
        "connection",
    }
)  # fmt: skip


def traces(mistakes: Mistakes, server: Record) -> TracesConfig | None:
    """None: there is no such table, and no spans are made."""
    if not server.read("traces", fields.table, False):
        return None
    record = server.inner("traces")
    result = TracesConfig(
        endpoint=record.require("endpoint", _endpoint, _URL, ""),
        headers=record.read("headers", headers, {}),
        sample=record.read("sample", _share, 1.0),
    )
    record.finish()
    return result


def _endpoint(mistakes: Mistakes, path: str, value: Any) -> str | None:
    """What is wrong is not shown: it may have a key in it."""
    try:
        parts = urlsplit(value) if isinstance(value, str) and _VISIBLE.fullmatch(value) else None
        port = None if parts is None else parts.port
    except ValueError:
        parts = port = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        mistakes.add(path, f"expected {_URL}")
    elif parts.username or parts.password or parts.fragment:
        mistakes.add(path, "expected a URL without a user; what it asks for belongs in headers")
    elif parts.path in ("", "/"):
        mistakes.add(path, f"expected {_URL}; this one has no path")
    else:
        return str(value)
    return None


def headers(mistakes: Mistakes, path: str, value: Any) -> dict[str, Secret] | None:
    if not fields.is_table(value):
        mistakes.expected(path, 'a table such as { ["Authorization"] = env("TOKEN") }', value)
        return None
    found: dict[str, Secret] = {}
    for name, text in value.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mistakes.add(path, f"expected names of headers as keys, got {fields.show(name)}")
        elif name.lower() in _OWN:
            mistakes.add(f"{path}.{name}", "this header is set by the gateway")
        elif not isinstance(text, str) or not _VALUE.fullmatch(text):
            # The value is not shown.
            mistakes.add(f"{path}.{name}", "expected a text (printable ASCII)")
        else:
            found[name] = Secret(text)
    return found


def _share(mistakes: Mistakes, path: str, value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    mistakes.expected(path, "a share of the requests, 0 to 1", value)
    return None
