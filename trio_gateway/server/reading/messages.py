"""What the gateway and a process that reads a large body say to each other. Pure.

A message is a head in msgpack, and any number of bytes after it. Twelve bytes before them say how
long the two are.

    Body, the body          → Opened                         the model is known
    Terms                   → Read, the counted, the body    it may be had, and the rest is read
    Translation, an answer  → Translated, the same for an Ollama client
    any of them             → Refused

The body comes back only where it is another one: an Ollama request, translated.
"""

from __future__ import annotations

import struct

import msgspec

from trio_gateway.config.schema import RewriteConfig
from trio_gateway.models.medium import Refusals
from trio_gateway.models.need.measured_form import Measures
from trio_gateway.server.api.billing_line import Found
from trio_gateway.server.ollama.lines import Durations
from trio_gateway.server.ollama.request import Kind, OllamaCall

LENGTHS = struct.Struct(">IQ")


Place = tuple[str, int, int]  # a member's name, where its value begins and where it ends


class Body(msgspec.Struct, frozen=True, tag=True):
    """`endpoint`: the name of its row; None: the body may be anything, and only the places of its
    members are asked for. `by_content`: of an explanation, which may name none."""

    endpoint: str | None
    by_content: bool = False


class Terms(msgspec.Struct, frozen=True, tag=True):
    """What is known of its model. `name`: what an Ollama request calls it from now on. `context`:
    tokens of its largest. `refusals`: of media."""

    rewrite: RewriteConfig | None
    constant_billing_line: bool
    image_tokens: int
    name: str = ""
    context: int = 0
    refusals: Refusals = {}


class Translation(msgspec.Struct, frozen=True, tag=True):
    """Of a whole answer, for an Ollama request: what `translate_answer` is given."""

    kind: Kind
    model: str
    created_at: str
    durations: Durations
    dimensions: int | None


class Opened(msgspec.Struct, frozen=True, tag=True):
    """`places`: of a body that may be anything; None: it is no object. `is_own_form`: of one for
    a row that is one of two forms; see api/own_form.py."""

    endpoint: str
    model: str | None
    places: list[Place] | None = None
    is_own_form: bool = False


class Read(msgspec.Struct, frozen=True, tag=True):
    """`places`: of all members. `measures`: None, it is not counted.
    `chooser`: see LargeRequest. `billing_line`: where it is to be made constant.
    `call`: what an Ollama request asks for, without its fields. `counted_bytes`: of those that
    follow; the rest are the body."""

    places: list[Place]
    wants_stream: bool
    measures: Measures | None
    counted_bytes: int
    chooser: str | None = None
    call: OllamaCall | None = None
    billing_line: Found | None = None


class Translated(msgspec.Struct, frozen=True, tag=True):
    """The answer follows."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An ApiError."""

    status: int
    message: str
    error_type: str
    code: str | None
    param: str | None


Question = Body | Terms | Translation
Answer = Opened | Read | Translated | Refused


def head_of(message: Question | Answer, payload_bytes: int) -> bytes:
    """What goes before the payload."""
    encoded = msgspec.msgpack.encode(message)
    return LENGTHS.pack(len(encoded), payload_bytes) + encoded
