"""What a large request is counted as, in numbers: it was read in another process. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from trio_gateway.models.need.beginning import Beginning, beginning_of_outline
from trio_gateway.models.need.bounds import IMAGE_TOKENS, Overhead
from trio_gateway.models.need.contents import ChatSize, RequestFields, structure_size
from trio_gateway.models.need.countable import Countable
from trio_gateway.models.need.counted_form import CountedForm
from trio_gateway.models.need.outline import Outline, outline_of

_CHAT = "chat/completions"


class Measures(msgspec.Struct, frozen=True):
    """`most`, `least`: the bounds of what is no chat; `least` is also a chat's. `tools_bytes`: as
    JSON. `digest`: of all that the count depends on. `left_out`, `rest`, `counted_media`: of its
    Countable; `is_countable`: there is one. `outline`: of a chat; `beginning`: of a prompt."""

    kind: str
    size: ChatSize
    answer: int | None
    is_plain: bool
    tools: int
    tools_bytes: int
    most: int
    least: int
    digest: bytes
    is_countable: bool = False
    outline: Outline | None = None
    beginning: Beginning | None = None
    counted_media: int = 0
    left_out: int = 0
    rest: int = 0


class MeasuredForm(msgspec.Struct, frozen=True):
    """As a CountedForm answers, of which there is nothing but the numbers and `counted`: what is
    counted in its place, `b""` without a Countable. `body`: what an engine may tell its
    conversation by, `b""` if that is too long."""

    measures: Measures
    counted: bytes

    @property
    def kind(self) -> str:
        return self.measures.kind

    @property
    def body(self) -> bytes:
        whole = not (self.measures.counted_media or self.measures.left_out)
        return self.counted if whole else b""

    @property
    def answer(self) -> int | None:
        return self.measures.answer

    def size(self) -> ChatSize:
        return self.measures.size

    def is_plain(self, size: ChatSize) -> bool:
        return self.measures.is_plain

    def upper_bound(
        self, overhead: Overhead, image_tokens: int = IMAGE_TOKENS, size: ChatSize | None = None
    ) -> int:
        measures = self.measures
        if measures.kind != _CHAT:
            return measures.most
        total = overhead.of_so_many(measures.size.messages, measures.tools)
        total += measures.size.text + measures.size.media * image_tokens
        return total if overhead.ignores_tools else total + measures.tools_bytes

    def lower_bound(self, image_tokens: int = IMAGE_TOKENS) -> int:
        return self.measures.least

    def countable(self, image_tokens: int = IMAGE_TOKENS) -> Countable | None:
        measures = self.measures
        if not measures.is_countable:
            return None
        fields = msgspec.json.decode(self.counted, type=RequestFields)
        return Countable(
            fields, self.counted, measures.counted_media, measures.left_out, measures.rest
        )

    def beginning(self) -> Beginning | None:
        outline = self.measures.outline
        return self.measures.beginning if outline is None else beginning_of_outline(outline)

    def key(self, model: str) -> bytes:
        return hashlib.blake2b(self.measures.digest + model.encode(), digest_size=16).digest()


Form = CountedForm | MeasuredForm

# What is counted has no more parts than are decoded in a few ms.
_COUNTED_COMMAS = 20_000


def measured(form: CountedForm, image_tokens: int) -> MeasuredForm:
    """All that is ever asked of it.

    Raises:
        RecursionError: nested deeper than any JSON that an engine reads.
    """
    size, fields = form.size(), form.fields
    is_chat = form.kind == _CHAT
    tools = fields.tools if is_chat else None
    counted = form.countable(image_tokens)
    if counted is not None and counted.body.count(b",") > _COUNTED_COMMAS:
        counted = None
    measures = Measures(
        kind=form.kind,
        size=size,
        answer=form.answer,
        is_plain=form.is_plain(size),
        tools=len(tools) if isinstance(tools, list) else 0,
        tools_bytes=structure_size([tools]) if tools else 0,
        most=0 if is_chat else form.upper_bound(Overhead(), image_tokens, size),
        least=form.lower_bound(image_tokens),
        digest=form.key(""),
        outline=outline_of(fields.messages, tools) if is_chat else None,
        beginning=None if is_chat else form.beginning(),
    )
    if counted is None:
        return MeasuredForm(measures, b"")
    measures = msgspec.structs.replace(
        measures,
        is_countable=True,
        counted_media=counted.media,
        left_out=counted.left_out,
        rest=counted.rest,
    )
    return MeasuredForm(measures, counted.body)
