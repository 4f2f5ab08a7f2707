"""LargeBody: a large request's body in the pieces in which it came.

Its fields are found by their places, and none of it is ever copied in one go: 64 MB take 50 ms, in
which nobody is answered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import msgspec

from trio_gateway import rawjson
from trio_gateway.config.schema import RewriteConfig
from trio_gateway.engine.http.body_source import BodySource
from trio_gateway.models.need.measured_form import MeasuredForm
from trio_gateway.server.api.billing_line import CONSTANT, Found
from trio_gateway.server.api.context_errors import ANSWER_LIMITS

Place = tuple[int, int]  # where a value begins and ends, in bytes
Parts = tuple[Place | bytes, ...]  # of what a value is made
_MOST_DIGITS = 400


class LargeBody:
    """`places`: the values of its members, by name, in their order; None: it is no JSON object.
    What is changed is written in place of the value, and blanks around members are then not kept.
    """

    def __init__(self, pieces: Sequence[bytes], places: dict[str, Place] | None) -> None:
        self._pieces = pieces
        self._ends = [*accumulate(map(len, pieces))]
        self.is_object = places is not None
        self._members: dict[str, Parts] = {n: (place,) for n, place in (places or {}).items()}
        self._is_changed = False

    @property
    def size(self) -> int:
        """Bytes, as they came."""
        return self._ends[-1] if self._ends else 0

    def beginning(self, size: int) -> bytes:
        """The first bytes, as they came."""
        return b"".join(self._between(0, min(size, self.size)))

    def short_member(self, name: str) -> bytes | None:
        """A member's value, if it is a number or a word, and empty otherwise; None: there is no
        such member."""
        return self._short(self._members[name]) if name in self._members else None

    def first_byte(self, name: str) -> bytes:
        """Of a member's value, which tells its type; empty: there is no such member."""
        first = self._members[name][0] if name in self._members else b""
        if isinstance(first, bytes):
            return first[:1]
        return b"".join(self._between(first[0], first[0] + 1))

    def replaced(self, name: str, value: bytes) -> LargeBody:
        """With this JSON value as its member `name`."""
        return self._with({**self._members, name: (value,)})

    def rewritten(self, rewrite: RewriteConfig) -> LargeBody:
        """As the model's `rewrite` wants it; see ParsedRequest.rewritten."""
        members = {n: value for n, value in self._members.items() if n not in rewrite.remove}
        for name, value in rewrite.default.items():
            if name not in members or self._short(members[name]) == b"null":
                members[name] = (value,)
        return self._with({**members, **{name: (value,) for name, value in rewrite.set.items()}})

    def with_constant_billing_line(self, found: Found) -> LargeBody:
        """See ParsedRequest.with_constant_billing_line."""
        (place,) = self._members[found.member]
        assert not isinstance(place, bytes)
        start, end = place
        parts: list[Place | bytes] = []
        for line_begin, line_end in found.places:
            parts += [(start, place[0] + line_begin), CONSTANT]
            start = place[0] + line_end
        return self._with({**self._members, found.member: (*parts, (start, end))})

    def with_answer_limit(self, answer_tokens: int) -> LargeBody:
        """With the request's own maximum of the answer lowered."""
        lowered = {
            name: (b"%d" % answer_tokens,)
            for name in ANSWER_LIMITS
            if name in self._members
            and (given := self._number(name)) is not None
            and given > answer_tokens
        }
        return self._with({**self._members, **lowered}) if lowered else self

    def _number(self, name: str) -> int | None:
        return rawjson.whole_number(rawjson.decode_or_none(self._short(self._members[name])))

    def _with(self, members: dict[str, Parts]) -> LargeBody:
        made = LargeBody(self._pieces, {})
        made._members, made._is_changed = members, True
        return made

    def _short(self, value: Parts) -> bytes:
        """A value, if it is a number or a word."""
        if len(value) > 1:
            return b""
        (part,) = value
        if isinstance(part, bytes):
            return part
        begin, end = part
        return b"".join(self._between(begin, end)) if end - begin <= _MOST_DIGITS else b""

    def source(self, served_name: str | None) -> BodySource:
        """The body for an engine that calls its model so; None: as the client does. What is no
        object is left alone."""
        if served_name is None or not self.is_object:
            return LargeBodySource(self, self._parts())
        named = self.replaced("model", msgspec.json.encode(served_name))
        return LargeBodySource(self, named._parts())

    def _parts(self) -> list[Place | bytes]:
        if not self._is_changed:
            return [*self._pieces]
        parts: list[Place | bytes] = [b"{"]
        for name, value in self._members.items():
            comma = b"," if len(parts) > 1 else b""
            parts += [comma + msgspec.json.encode(name) + b":", *value]
        return [*parts, b"}"]

    def size_of(self, parts: Sequence[Place | bytes]) -> int:
        return sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in parts)

    def pieces_of(self, parts: Sequence[Place | bytes]) -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from self._between(*part)

    def _between(self, begin: int, end: int) -> Iterator[bytes]:
        place = bisect_right(self._ends, begin)
        while begin < end:
            piece = self._pieces[place]
            start = self._ends[place] - len(piece)
            yield piece[begin - start : end - start]
            begin, place = self._ends[place], place + 1


class LargeRequest(msgspec.Struct, frozen=True):
    """A large request, as far as the gateway has to know it. `form`: None, it is not counted.
    `chooser`: the field by which a site could choose another model, if there is one."""

    body: LargeBody
    wants_stream: bool
    form: MeasuredForm | None
    chooser: str | None


class LargeBodySource(BodySource):
    """It can be given out any number of times."""

    def __init__(self, body: LargeBody, parts: Sequence[Place | bytes]) -> None:
        self._body, self._parts = body, parts
        self.length: int | None = body.size_of(parts)
        self.request: object = body
        self._given = 0
        self._left = body.pieces_of(parts)

    def rewind(self) -> None:
        self._given, self._left = 0, self._body.pieces_of(self._parts)

    @property
    def can_repeat(self) -> bool:
        return True

    @property
    def is_begun(self) -> bool:
        return self._given > 0

    @property
    def is_complete(self) -> bool:
        return self._given == self.length

    async def receive(self) -> bytes:
        piece = next((piece for piece in self._left if piece), b"")
        self._given += len(piece)
        return piece
