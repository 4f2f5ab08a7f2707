"""Forms as a client sends them, part by part."""

from __future__ import annotations

import random

from trio_gateway.server.forms.form_upload import KEEP_BYTES

TYPE = "multipart/form-data; boundary=bound"
BLOB = random.Random(5).randbytes(5 * KEEP_BYTES)  # more than is kept in memory


def part(name: str, value: bytes, more: str = "", headers: str = "") -> bytes:
    head = f'--bound\r\nContent-Disposition: form-data; name="{name}"{more}\r\n{headers}\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--bound--\r\n"
