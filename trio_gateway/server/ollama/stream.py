"""NdjsonStream: an engine's stream on its way to an Ollama client."""

from __future__ import annotations

import trio

from trio_gateway.server.api.endpoint import Family
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.ollama.answer import NdjsonTranslator
from trio_gateway.server.ollama.lines import Durations
from trio_gateway.server.relay.answer import AnswerStream
from trio_gateway.server.relay.wait import Wait


class Stopwatch:
    """Measures a request, for the times in its answer. `wait` knows when its engine was asked."""

    def __init__(self, wait: Wait, began_at: float) -> None:
        self._wait, self._began_at = wait, began_at
        self._first_text_at: float | None = None

    def note_text(self) -> None:
        """The first text of the answer has come."""
        if self._first_text_at is None:
            self._first_text_at = trio.current_time()

    def durations(self) -> Durations:
        """Up to now."""
        now = trio.current_time()
        asked_at = self._wait.engine_asked_at or now
        first_text_at = self._first_text_at or asked_at
        return Durations(
            total_s=now - self._began_at,
            load_s=asked_at - self._began_at,
            prompt_s=first_text_at - asked_at,
            answer_s=now - first_text_at,
        )


class NdjsonStream(AnswerStream):
    """Each piece of the source is written as the lines that it completes."""

    has_events = False

    def __init__(
        self, source: AnswerStream, translator: NdjsonTranslator, stopwatch: Stopwatch
    ) -> None:
        self._source, self._translator, self._stopwatch = source, translator, stopwatch
        self.is_begun = source.is_begun

    def last_words(self, error: ApiError) -> bytes:
        return error.encode(Family.OLLAMA) + b"\n"

    async def aclose(self) -> None:
        await self._source.aclose()

    async def __anext__(self) -> bytes:
        while not self.is_over:
            lines = b""
            try:
                lines = self._translator.feed(await self._source.__anext__())
                self.is_over = self._source.is_over
            except StopAsyncIteration:
                self.is_over = True
            if self._translator.has_text:
                self._stopwatch.note_text()
            if self.is_over:
                lines += self._translator.finish(self._stopwatch.durations())
            if lines:
                return lines
        raise StopAsyncIteration
