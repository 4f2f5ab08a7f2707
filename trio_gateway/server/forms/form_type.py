"""The Content-Type of a form: read in one way only, and written anew for the engine. Pure.

`boundary=a; boundary=b`, `xboundary=a; boundary=b` or `boundary*=…` are other forms to other
parsers: one of them would read another `model` than the gateway does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trio_gateway.server.forms.part_head import invalid

FORM = "multipart/form-data"
# Of RFC 2046's characters, those that no parser trims, decodes or ends at. `=` needs quotes.
_BOUNDARY = r"[0-9A-Za-z_.+-]{1,70}"
_QUOTED_BOUNDARY = r"[0-9A-Za-z_.+=-]{1,70}"
_PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*(?i:(?P<name>boundary|charset))=(?:"(?P<quoted>{_QUOTED_BOUNDARY})"'
    rf"|(?P<plain>{_BOUNDARY}))"
)
_PARAMETERS_MAX = 2


def boundary_of(values: Sequence[str]) -> bytes:
    """The boundary of a form, of all Content-Type headers of its request.

    Raises:
        ApiError: 400, there is not exactly one header with one well-formed `boundary`.
    """
    if len(values) != 1:
        raise invalid("the request needs exactly one Content-Type header")
    kind = values[0].partition(";")[0]
    if kind.strip(" \t").lower() != FORM:
        raise invalid(f"the Content-Type is not {FORM}")
    boundary: str | None = None
    at, end, seen = len(kind), len(values[0].rstrip(" \t")), 0
    while at < end:
        match = _PARAMETER.match(values[0], at, end)
        seen += 1
        if match is None or seen > _PARAMETERS_MAX:
            raise invalid("the Content-Type has something else than one plain `boundary` in it")
        if match["name"].lower() == "boundary":
            if boundary is not None:
                raise invalid("the Content-Type has two boundaries")
            boundary = match["quoted"] or match["plain"]
        at = match.end()
    if boundary is None or "boundary=" in boundary.lower():
        raise invalid("the Content-Type has no `boundary`; leave it to your HTTP client")
    return boundary.encode()


def type_with(boundary: bytes) -> bytes:
    """The Content-Type of a form with this boundary, as an engine gets it."""
    value = b'"%b"' % boundary if b"=" in boundary else boundary
    return b"%b; boundary=%b" % (FORM.encode(), value)
