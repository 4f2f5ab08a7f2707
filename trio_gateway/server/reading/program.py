"""Reads large bodies: a program that `readers.py` runs. See `messages.py` for what it is asked.

It sees one body at a time, and writes nothing of it but what was asked for, to nobody but the
gateway.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from trio_gateway.models.need.measured_form import measured
from trio_gateway.rawjson import Members, NameTwice, members_or_none, spans
from trio_gateway.server.api.billing_line import find_billing_line
from trio_gateway.server.api.endpoint import Family, Need
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.media import media_parts, refuse_media
from trio_gateway.server.api.model_choosers import chooser_among
from trio_gateway.server.api.own_form import OPENAI_FORMS, is_own_form
from trio_gateway.server.api.request_body import (
    MEMBERS_MAX,
    OpenRequest,
    made_request,
    nested_too_deeply,
    open_request,
    refuse_bomb,
)
from trio_gateway.server.ollama.answer import translate_answer
from trio_gateway.server.ollama.request import Kind, OpenCall, open_call
from trio_gateway.server.reading.explained import ROWS, open_to_explain
from trio_gateway.server.reading.messages import (
    LENGTHS,
    Answer,
    Body,
    Opened,
    Place,
    Question,
    Read,
    Refused,
    Terms,
    Translated,
    Translation,
    head_of,
)

_MOST_MEMORY = 2 << 30
_NAME_MAX = 1000
# Of a model's name, for the gateway: no model has a longer one, and megabytes of it would keep the
# event loop busy.
_NAME_SHOWN = 10_000
_OLLAMA = "api/"

Reply = tuple[Answer, Sequence[bytes]]


class Reader:
    """Answers questions about one body after the other."""

    def __init__(self) -> None:
        self._open: OpenRequest | OpenCall | None = None

    def answer(self, question: Question, payload: bytes) -> Reply:
        try:
            if isinstance(question, Body):
                return self._opened(question, payload), ()
            if isinstance(question, Translation):
                body = translate_answer(
                    question.kind, question.model, question.created_at, payload,
                    question.durations, question.dimensions,
                )  # fmt: skip
                return Translated(), (body,)
            opened, self._open = self._open, None
            if opened is None:
                raise AssertionError("there is no body to read")
            return _read(opened, question)
        except ApiError as error:
            return _refused(error), ()
        except RecursionError:
            return _refused(nested_too_deeply()), ()
        except MemoryError:
            self._open = None
            message = "reading the body takes too much memory"
            return _refused(ApiError(413, message, code="body_too_complex")), ()

    def _opened(self, question: Body, data: bytes) -> Opened:
        self._open = None  # the body before takes no memory meanwhile
        name = question.endpoint
        opened: OpenRequest | OpenCall
        if question.by_content:
            opened = open_to_explain(name, data)
        elif name is None:
            return Opened("", None, _places_if_any(data))
        elif name.startswith(_OLLAMA):
            opened = open_call(Kind(name.removeprefix(_OLLAMA)), data)
        else:
            opened = open_request(data, ROWS[name])
        self._open = opened
        if isinstance(opened, OpenCall):
            return Opened(_OLLAMA + opened.kind.value, opened.model[:_NAME_SHOWN])
        row = opened.endpoint
        is_own = row.name in OPENAI_FORMS and is_own_form(row, opened.model, opened.members)
        return Opened(row.name, opened.model and opened.model[:_NAME_SHOWN], is_own_form=is_own)


def _refused(error: ApiError) -> Refused:
    return Refused(error.status, error.message, error.error_type, error.code, error.param)


def _read(opened: OpenRequest | OpenCall, terms: Terms) -> Reply:
    if isinstance(opened, OpenRequest):
        endpoint, request = opened.endpoint, opened.read()
        places = _places(request.data, request.members)
        call, body = None, b""
    else:
        asked = opened.read()
        call = msgspec.structs.replace(asked, fields={})
        if asked.only_loads:
            return Read([], False, None, 0, None, call), ()
        endpoint = ROWS[asked.endpoint]
        request = made_request(asked.request(terms.name, terms.context), endpoint)
        places, body = _places(request.data, request.members), request.data
    chooser = chooser_among(request.values)
    if terms.refusals:
        family = endpoint.family if call is None else Family.OLLAMA
        refuse_media(terms.refusals, media_parts(request.values, endpoint), family)
    line = None
    if terms.constant_billing_line:
        line = find_billing_line(request.values, request.members)
        if line is not None:
            request = request.with_constant_billing_line(line)
    if terms.rewrite is not None:
        request = request.rewritten(terms.rewrite)
    streams = request.wants_stream
    if endpoint.need is Need.UNCOUNTED:
        return Read(places, streams, None, 0, chooser, call, line), (body,)
    form = measured(request.counted(endpoint), terms.image_tokens)
    read = Read(places, streams, form.measures, len(form.counted), chooser, call, line)
    return read, (form.counted, body)


def _places(data: bytes, found: Members) -> list[Place]:
    if any(len(name) > _NAME_MAX for name in found):
        message = f"the body has a field with a name of more than {_NAME_MAX} characters"
        raise ApiError(400, message, code="body_too_complex")
    return [(name, begin, end) for name, (begin, end) in spans(data, found).items()]


def _places_if_any(data: bytes) -> list[Place] | None:
    """Of a body that may be anything."""
    try:
        refuse_bomb(data)
        found = members_or_none(data)
        if found is None or len(found) > MEMBERS_MAX:
            return None
        return _places(data, found)
    except (ApiError, NameTwice):
        return None


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has none of it
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main() -> None:
    _limit_memory()
    reader, source, sink = Reader(), sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError):
        while True:
            head_bytes, payload_bytes = LENGTHS.unpack(_exactly(source, LENGTHS.size))
            question = msgspec.msgpack.decode(_exactly(source, head_bytes), type=Question)
            answer, payload = reader.answer(question, _exactly(source, payload_bytes))
            sink.write(head_of(answer, sum(map(len, payload))))
            for part in payload:
                sink.write(part)
            sink.flush()
            del question, answer, payload


if __name__ == "__main__":
    main()
