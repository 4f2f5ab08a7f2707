"""Answer: what the relay gives for a request, whole or as it comes."""

from __future__ import annotations

import abc
from typing import Self

import msgspec
import trio

from trio_gateway.engine.http.exchange import Header
from trio_gateway.server.api.endpoint import Family
from trio_gateway.server.api.errors import ApiError, engine_error
from trio_gateway.server.budget import Hold


class AnswerStream(abc.ABC):
    """The body of an answer that is passed on as it comes: iterate over it once, then `aclose` it,
    however the iteration ended. What a request's end has to give back does not depend on that.

    `has_events`: it is server-sent events, into which an error can be put. `is_begun`: the start of
    the answer and a part of it were sent already (`early_answer`). `is_over`: the last piece was
    given, if that is known with it; otherwise the next one is asked for.
    """

    has_events: bool
    is_begun: bool = False
    is_over: bool = False

    def __aiter__(self) -> Self:
        return self

    @abc.abstractmethod
    async def __anext__(self) -> bytes:
        """The next piece, which is not empty.

        Raises:
            TornStream: it broke off, and its format has no way to say so.
        """

    def last_words(self, error: ApiError) -> bytes:
        """The error as the end of what was given until now; empty if its format has no place for
        one."""
        return b""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Give back what it holds; more than once is the same as once."""


async def collected(stream: AnswerStream, hold: Hold) -> bytes:
    """All of it. Raises TornStream, and NoRoom."""
    pieces, size = [], 0
    async for piece in stream:
        hold.take(len(piece))
        pieces.append(piece)
        size += len(piece)
    if size <= _JOINED_AT_ONCE:
        return b"".join(pieces)
    # Joining bytes lets go of the interpreter, so in a thread it is in nobody's way.
    return await trio.to_thread.run_sync(b"".join, pieces)


_JOINED_AT_ONCE = 1 << 20  # bytes


class Answer(msgspec.Struct, frozen=True):
    """The names of its headers are in small letters."""

    status: int
    headers: list[Header]
    body: bytes | AnswerStream


def without_length(headers: list[Header]) -> list[Header]:
    """For a body that has become another than its engine's."""
    return [(name, value) for name, value in headers if name != b"content-length"]


def in_shape(family: Family, answer: Answer) -> Answer:
    """With an engine's error in the shape of the client's API. In a stream that has begun it has
    its endpoint's shape instead, which LateAnswer sees to."""
    if answer.status < 400 or not isinstance(answer.body, bytes):
        return answer
    changed = engine_error(answer.status, answer.body, family)
    if changed is answer.body:
        return answer
    # What the engine said may have been plain text.
    headers = [(n, v) for n, v in without_length(answer.headers) if n != b"content-type"]
    return Answer(answer.status, [(b"content-type", b"application/json"), *headers], changed)
