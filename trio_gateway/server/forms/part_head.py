"""The head of a part of a multipart form: which field it is, read in one way only. Pure.

Parsers differ here: the last `name` or the first, `name*`, a `;` inside of quotes, a folded line,
what a transfer encoding or a charset makes of the value. What two of them could read in two ways is
refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from trio_gateway.server.api.errors import ApiError

HEADERS_MAX = 8
HEADER_MAX_BYTES = 4096
MODEL = "model"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_PARAMETER = re.compile(rb'[ \t]*;[ \t]*([a-z*]+)=(?:"((?:[^"\\]|\\.)*)"|(' + _TOKEN + rb"))[ \t]*")
# The name comes first: `filename="model"` before it ends in `name="model"`, for who looks for that.
_PARAMETERS = (b"name", b"filename", b"filename*")
_EXTENDED = re.compile(rb"(?i:utf-8)'[A-Za-z-]*'(?:[!#$&+\-.^_`|~0-9A-Za-z]|%[0-9A-Fa-f]{2})*")
_QUOTING = re.compile(rb"[\\%'\"=;]")
_UNENCODED = (b"binary", b"8bit", b"7bit")
_TEXT = re.compile(rb'text/plain(?:[ \t]*;[ \t]*charset="?([0-9a-z-]+)"?)?', re.IGNORECASE)
_UTF_8 = b"utf-8"
# Apache's client for Java says the first one of its own accord. ASCII is the same in all of them.
_LIKE_ASCII = (b"iso-8859-1", b"us-ascii", b"ascii", b"windows-1252")
_NESTED = (b"multipart/", b"message/")
_CHARSET_FIELD = "_charset_"


class PartHead(NamedTuple):
    """`size`: how many bytes the part says that it has, if it does. `is_ascii`: it must be."""

    name: str
    is_file: bool
    size: int | None = None
    is_ascii: bool = False

    @property
    def is_model(self) -> bool:
        return self.name == MODEL


def read_part_head(block: bytes) -> PartHead:
    """The headers of a part, without the empty line after them.

    Raises:
        ApiError: 400, some parser would read it in another way than others.
    """
    lines = block.split(b"\r\n")
    if len(lines) > HEADERS_MAX:
        raise invalid(f"a part has more than {HEADERS_MAX} headers")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or len(line) > HEADER_MAX_BYTES:
            raise invalid("a part has a malformed header")
        name = match[1].lower()
        if name in headers:
            raise invalid(f"a part has two headers {name.decode()}")
        headers[name] = match[2].rstrip(b" \t")
    return _with_headers(headers)


def _with_headers(headers: dict[bytes, bytes]) -> PartHead:
    disposition = headers.get(b"content-disposition")
    if disposition is None:
        raise invalid("a part has no Content-Disposition header")
    name, is_file = _read_disposition(disposition)
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in _UNENCODED:
        raise invalid("a part is encoded (Content-Transfer-Encoding); send it as it is")
    kind = headers.get(b"content-type", b"text/plain")
    if kind.lower().startswith(_NESTED):
        raise invalid("a part consists of parts")
    text = _TEXT.fullmatch(kind)
    charset = (text[1] or _UTF_8).lower() if text else b""
    if name == MODEL and charset != _UTF_8 and charset not in _LIKE_ASCII:
        raise invalid("`model` is not plain text in UTF-8")
    length = headers.get(b"content-length")
    if length is not None and not (length.isdigit() and len(length) < 20):
        raise invalid("a part's Content-Length is not a number")
    size = None if length is None else int(length)
    return PartHead(name, is_file, size, charset in _LIKE_ASCII)


def _read_disposition(value: bytes) -> tuple[str, bool]:
    """A part's name, and whether it is a file."""
    kind = value.partition(b";")[0]
    found: dict[bytes, bytes] = {}
    at = len(kind.rstrip(b" \t"))
    while at < len(value):
        match = _PARAMETER.match(value, at)
        if match is None or match[1] in found:
            raise _two_readings()
        found[match[1]] = match[3] if match[2] is None else match[2]
        at = match.end()
    names = [*found]
    if kind.strip(b" \t").lower() != b"form-data" or not {*names} <= {*_PARAMETERS}:
        raise _two_readings()
    if names[:1] != [b"name"] or _named_by_simple_parsers(value) != 1:
        raise _two_readings()
    extended = found.get(b"filename*")
    if extended is not None and _EXTENDED.fullmatch(extended) is None:
        raise _two_readings()
    return _name_of(found[b"name"]), len(names) > 1


def _named_by_simple_parsers(value: bytes) -> int:
    """How many names it has to those that split at each `;` (cpp-httplib does), quoted or not."""
    keys = (piece.partition(b"=")[0] for piece in value.split(b";")[1:])
    return sum(key.strip(b" \t\"'").lower().startswith(b"name") for key in keys)


def _name_of(raw: bytes) -> str:
    if _QUOTING.search(raw):
        raise _two_readings()
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise invalid("a field's name is not UTF-8") from None
    plain = name.partition("[")[0].strip().casefold()
    if not name.isprintable() or (plain == MODEL and name != MODEL):
        raise invalid("the name of a field can be read as another one")
    if plain == _CHARSET_FIELD:
        raise invalid("forms are read as UTF-8; leave out the field `_charset_`")
    return name


def _two_readings() -> ApiError:
    return invalid('a part\'s Content-Disposition is not `form-data; name="…"` with one plain name')


def invalid(what: str) -> ApiError:
    return ApiError(400, f"the body is not a multipart form: {what}", code="invalid_form")
