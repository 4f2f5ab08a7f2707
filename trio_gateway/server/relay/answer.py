"""Answer: what the relay gives for a request, whole or as it comes."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator
from typing import NamedTuple

from quart.wrappers.response import ResponseBody

from trio_gateway.engine.http.exchange import Header


class AnswerStream(ResponseBody, abc.ABC):
    """The body of an answer that is passed on as it comes. `has_events`: it is server-sent events,
    into which an error can be put."""

    has_events: bool

    @abc.abstractmethod
    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Answer(NamedTuple):
    status: int
    headers: list[Header]
    body: bytes | AnswerStream


def without_length(headers: list[Header]) -> list[Header]:
    """For a body that has become another than its engine's."""
    return [(name, value) for name, value in headers if name != b"content-length"]
