"""Usage: what an engine's answer says about its tokens and its time. Pure.

llama-server puts `timings` into an answer and into the last event of a stream; `usage` is in a
stream only if the client asked for it. Either is enough.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from trio_gateway.rawjson import decode_or_none

# Prompts shorter than this say little about the speed of long ones.
SPEED_FROM_TOKENS = 64

# What is beyond these is no number of tokens and no time, and so much as that is added up, divided
# and written into files. An answer with one in it says nothing.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
_SHORTEST_MS = 1e-6  # what took less has no speed
_WORD_CHARACTERS = 40  # of `finish`


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer. `cached_tokens` of the prompt were in the engine's KV cache; None: it
    does not say. `read_tokens` of the prompt were read in `read_ms`, the answer made in `made_ms`;
    `drafted` tokens were proposed by a draft model, `accepted` of them taken; None: it does not
    say. `finish`: why the answer ended, in its API's word; empty: it does not say."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int | None = None
    read_tokens: int | None = None
    read_ms: float | None = None
    made_ms: float | None = None
    drafted: int | None = None
    accepted: int | None = None
    finish: str = ""

    @property
    def speed(self) -> float | None:
        """Prompt tokens a second, of a prompt long enough to tell."""
        read = self.read_tokens or 0
        if read < SPEED_FROM_TOKENS or not self.read_ms:
            return None
        return read / self.read_ms * 1000


class _Details(msgspec.Struct):
    cached_tokens: Tokens | None = None


class _Usage(msgspec.Struct):
    """The first three of chat completions; `input_tokens` and what follows of the Responses and the
    Messages API, of which the latter counts cached tokens separately."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens | None = 0
    prompt_tokens_details: _Details | None = None
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None

    def as_chat(self) -> _Usage:
        """In the terms of chat completions."""
        if not self.input_tokens:
            return self
        details = self.input_tokens_details or _Details(self.cache_read_input_tokens)
        apart = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return _Usage(self.input_tokens + apart, self.output_tokens, details)

    def after(self, begun: _Usage | None) -> _Usage:
        """With the prompt's tokens as a stream's first event has them, if this one has none."""
        if begun is None or self.input_tokens or self.prompt_tokens:
            return self
        return msgspec.structs.replace(begun, output_tokens=self.output_tokens)


class _Timings(msgspec.Struct):
    prompt_n: Tokens | None = None
    prompt_ms: Milliseconds | None = None
    cache_n: Tokens | None = None
    predicted_n: Tokens | None = None
    predicted_ms: Milliseconds | None = None
    draft_n: Tokens | None = None
    draft_n_accepted: Tokens | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Answered(msgspec.Struct):
    """`response`: the whole answer in the last event of a stream of the Responses API."""

    usage: _Usage | None = None
    timings: _Timings | None = None
    response: _Answered | None = None
    choices: list[_Choice] = []
    stop_reason: str | None = None
    stop_type: str | None = None
    status: str | None = None

    @property
    def finish(self) -> str:
        """In its API's own word."""
        if self.choices:
            said = self.choices[0].finish_reason
        else:
            said = self.stop_reason or self.stop_type or self.status
        return (said or "")[:_WORD_CHARACTERS]


_NO_TIMINGS, _NO_USAGE = _Timings(), _Usage()


class _Begun(msgspec.Struct):
    """The first event of a stream of the Messages API. Only it says how long the prompt is."""

    message: _Answered


def usage_of_answer(body: bytes, begun: _Usage | None = None) -> Usage | None:
    """Of a whole answer, or of one event's data; None if it says nothing. `begun`: what the first
    event of its stream has said."""
    answer = decode_or_none(body, _Answered)
    if answer is None:
        return None
    if answer.usage is None and answer.response is not None:
        answer = answer.response
    timings = answer.timings or _NO_TIMINGS
    usage = answer.usage or _NO_USAGE
    if usage is not _NO_USAGE and (usage.input_tokens or begun is not None):
        usage = usage.after(begun).as_chat()
    if usage.prompt_tokens:
        details, cached = usage.prompt_tokens_details, timings.cache_n
        if details is not None and details.cached_tokens is not None:
            cached = details.cached_tokens
        prompt, completion = usage.prompt_tokens, usage.completion_tokens or 0
    elif timings.prompt_n is not None and timings.cache_n is not None:
        cached = timings.cache_n
        prompt, completion = timings.prompt_n + timings.cache_n, timings.predicted_n or 0
    else:
        return None
    return Usage(
        prompt, completion, cached, timings.prompt_n, _took(timings.prompt_ms),
        _took(timings.predicted_ms), timings.draft_n, timings.draft_n_accepted, answer.finish,
    )  # fmt: skip


def _took(ms: float | None) -> float | None:
    return ms if ms is None or ms >= _SHORTEST_MS or not ms else None


# Inside a text the quotes would have a backslash before them.
_FINISH = re.compile(rb'"(?:finish_reason|stop_reason|stop_type)": ?"(\w+)"')


def usage_of_stream(tail: bytes, beginning: bytes = b"") -> Usage | None:
    """Of the end of a stream of events: its last event that says anything. `beginning`: of the
    same stream."""
    if b'"usage"' not in tail and b'"timings"' not in tail:
        return None  # otherwise a burst's last pieces, 256 KiB of events, would all be decoded
    begun = _begun(beginning)
    for line in reversed(tail.splitlines()):
        if line.startswith(b"data: {") and (usage := usage_of_answer(line[6:], begun)) is not None:
            if not usage.finish and (said := finish_of_stream(tail)):  # in an event before
                return msgspec.structs.replace(usage, finish=said)
            return usage
    return None


def finish_of_stream(tail: bytes) -> str:
    """Why it ended, in its API's word; empty: it does not say."""
    said = _FINISH.findall(tail)
    return said[-1].decode()[:_WORD_CHARACTERS] if said else ""


def _begun(beginning: bytes) -> _Usage | None:
    if b'"message_start"' not in beginning:
        return None
    for line in beginning.splitlines():
        if line.startswith(b"data: {"):
            event = decode_or_none(line[6:], _Begun)
            return None if event is None else event.message.usage
    return None


_ENDS = 2048
_USAGE = re.compile(rb'"usage":\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


def usage_of_ends(body: bytes) -> Usage | None:
    """Of embeddings, ranks and the like, which may be megabytes of numbers. Nobody has the time to
    decode those, so only their beginning and their end are looked at: 3 µs."""
    ends = body if len(body) <= 2 * _ENDS else body[:_ENDS] + b"\n" + body[-_ENDS:]
    found = _USAGE.search(ends)
    return None if found is None else usage_of_answer(b'{"usage":%b}' % found[1])


def usage_so_far(piece: bytes) -> Usage | None:
    """Of a whole answer, or of a stream that may have begun only."""
    return usage_of_answer(piece) if piece.startswith(b"{") else usage_of_stream(piece)
