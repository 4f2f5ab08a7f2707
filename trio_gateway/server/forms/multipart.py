"""FormReader: finds the field `model` in a multipart form that comes in pieces.

Pure: bytes in, the name and where it stands out. Nothing of a file is kept here. It is stricter
than the parser below it where an engine could read a form in another way than we do: a request must
not name one model to us and another one to its engine.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from trio_gateway.server.api.errors import ApiError

MODEL_MAX_BYTES = 1024
PARTS_MAX = 1000
PART_HEADERS_MAX = 8
PART_HEADER_MAX_BYTES = 4096

_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(rb";\s*name(\*\d*\*?)?\s*=", re.IGNORECASE)


class ModelField(NamedTuple):
    """The form's `model`; its value is `[start, end)` of the form's bytes."""

    name: str
    start: int
    end: int


class FormReader:
    """Feed it a form; it has its `model` as soon as that field is complete.

    Raises:
        ApiError: 400, the content type has no usable boundary.
    """

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise _invalid("the Content-Type has no `boundary`; leave it to your HTTP client")
        self.model: ModelField | None = None
        self._parser = _parser_for(boundary, self)
        self._fed = 0
        self._piece = b""
        self._parts = 0
        self._ended = False
        self._header_name, self._header_value = bytearray(), bytearray()
        self._disposition: bytes | None = None
        self._in_model = False
        self._value = bytearray()
        self._value_start: int | None = None

    def feed(self, piece: bytes) -> None:
        """Raises ApiError: 400, the form is broken, or its `model` is not one short text."""
        self._piece = piece
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _invalid(str(error)) from None
        self._fed += len(piece)
        self._piece = b""

    def finish(self) -> None:
        """The form is over. Raises ApiError: 400, as `feed`, or there was no `model`."""
        if not self._ended:
            raise _invalid("it ends before its closing boundary")
        if self.model is None:
            message = "the form has no field `model`; GET /v1/models lists the names"
            raise ApiError(400, message, code="missing_model", param="model")

    # -- called by the parser -----------------------------------------------------------------

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise _invalid(f"it has more than {PARTS_MAX} parts")
        self._disposition = None

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        name, value = bytes(self._header_name).lower(), bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()
        if name == b"content-disposition":
            if self._disposition is not None:
                raise _invalid("a part has two Content-Disposition headers")
            self._disposition = value

    def on_headers_finished(self) -> None:
        name, is_file = _read_disposition(self._disposition)
        self._in_model = name == b"model"
        if not self._in_model:
            return
        if is_file:
            raise _bad_model("`model` is a file; send its name as a text field")
        if self.model is not None:
            message = "the form has two fields `model`; send one"
            raise ApiError(400, message, code="duplicate_model", param="model")
        self._value.clear()
        self._value_start = None

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_model:
            return
        if self._value_start is None and data is self._piece:
            self._value_start = self._fed + start
        self._value += data[start:end]
        if len(self._value) > MODEL_MAX_BYTES:
            raise _bad_model(f"`model` is longer than {MODEL_MAX_BYTES} bytes")

    def on_part_end(self) -> None:
        if not self._in_model:
            return
        self._in_model = False
        try:
            name = self._value.decode()
        except UnicodeDecodeError:
            raise _bad_model("`model` is not UTF-8") from None
        # A first character that may begin a boundary has no position: it is a control character.
        if not name or not name.isprintable() or self._value_start is None:
            message = "`model` is empty or has control characters; GET /v1/models lists the names"
            raise ApiError(400, message, code="missing_model", param="model")
        start = self._value_start
        self.model = ModelField(name, start, start + len(self._value))

    def on_end(self) -> None:
        self._ended = True


def _parser_for(boundary: bytes, reader: FormReader) -> MultipartParser:
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": reader.on_part_begin,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_headers_finished": reader.on_headers_finished,
                "on_end": reader.on_end,
            },
            max_header_count=PART_HEADERS_MAX,
            max_header_size=PART_HEADER_MAX_BYTES,
        )
    except FormParserError as error:
        raise _invalid(str(error)) from None


def _read_disposition(value: bytes | None) -> tuple[bytes, bool]:
    """A part's name, and whether it is a file."""
    if value is None:
        raise _invalid("a part has no Content-Disposition header")
    names = _NAME.findall(_QUOTED.sub(b'""', value))
    kind, options = parse_options_header(value.decode("latin-1"))
    if kind != b"form-data" or names != [b""]:
        raise _invalid('a part\'s Content-Disposition is not `form-data; name="…"` with one name')
    return options.get(b"name", b""), b"filename" in options


def _invalid(what: str) -> ApiError:
    return ApiError(400, f"the body is not a multipart form: {what}", code="invalid_form")


def _bad_model(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_model", param="model")
