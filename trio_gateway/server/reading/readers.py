"""Readers: the processes that read large bodies, and who has which of them."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.process.helper import end_helper, start_helper
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.environment import inherited
from trio_gateway.models.media_support import MediaSupport
from trio_gateway.models.need.measured_form import MeasuredForm
from trio_gateway.server.api.errors import ApiError, shutting_down
from trio_gateway.server.api.large_body import LargeBody, LargeRequest
from trio_gateway.server.ollama.request import OllamaCall
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
    Translation,
    head_of,
)
from trio_gateway.server.reading.turns import Turns

log = logging.getLogger(__name__)

# A body of so many bytes or less is read at once, whatever is in it: that takes 10 ms at most. A
# larger one, too, unless it has more parts (each of which takes 1 to 3 µs) or more bytes than that.
SMALL_BYTES = 16_384
LIGHT_BYTES, LIGHT_COMMAS = 1 << 20, 8_000

READERS_MAX = 2
QUESTION_S = 20.0  # from the first byte of a body to its opening, and for the rest
IDLE_S = 60.0
_PIECE_BYTES = 1 << 18
# -P: no module comes from the folder that the gateway happens to run in.
_COMMAND = (sys.executable, "-P", "-m", "trio_gateway.server.reading.program")


def light_body(pieces: Sequence[bytes]) -> bytes | None:
    """A body that is read on the event loop; None: it is too large for that."""
    if len(pieces) == 1 and len(pieces[0]) <= SMALL_BYTES:
        return pieces[0]  # as most are
    size = sum(map(len, pieces))
    if size > LIGHT_BYTES:
        return None
    body = b"".join(pieces)
    if size > SMALL_BYTES and body.count(b",") > LIGHT_COMMAS:
        return None
    return body


class OpenLargeRequest:
    """Of which only the model is known, until it is read."""

    def __init__(
        self, reader: _Reader, pieces: Sequence[bytes], opened: Opened, media: MediaSupport
    ) -> None:
        self._reader, self._pieces, self._media = reader, pieces, media
        self._opened = opened

    @property
    def endpoint(self) -> str:
        """The name of its row."""
        return self._opened.endpoint

    @property
    def model(self) -> str | None:
        return self._opened.model

    @property
    def is_own_form(self) -> bool:
        """See Opened."""
        return self._opened.is_own_form

    def as_it_is(self) -> LargeBody:
        """A body that may be anything."""
        return _body(self._pieces, self._opened.places)

    async def read(
        self, model: ModelConfig, name: str = "", context: int = 0
    ) -> tuple[LargeRequest, OllamaCall | None]:
        """Its fields, checked and counted; of an Ollama request, also what it asks for, without
        its fields. `name`: what the model is called in an Ollama request, translated; `context`:
        tokens of its largest.

        Raises:
            ApiError: 400 or 413, with what is wrong.
        """
        rewrite = model.rewrite
        terms = Terms(
            rewrite, model.constant_billing_line, model.image_tokens, name, context,
            refusals=self._media.refusals(model),
        )  # fmt: skip
        answer, payload = await self._reader.ask(terms)
        assert isinstance(answer, Read)
        counted, made = _split(payload, answer.counted_bytes)
        body = _body(made or self._pieces, answer.places)
        if answer.billing_line is not None:
            body = body.with_constant_billing_line(answer.billing_line)
        if rewrite is not None:
            body = body.rewritten(rewrite)
        form = None if answer.measures is None else MeasuredForm(answer.measures, counted)
        return LargeRequest(body, answer.wants_stream, form, answer.chooser), answer.call


class Readers:
    """`run` owns the processes, which are started when they are needed.

    `secrets`: variables of the environment that are not for them. `closing`: set once the gateway
    stops, which ends the processes with the engines.
    """

    def __init__(
        self,
        reaper: Reaper | None = None,
        secrets: Collection[str] = (),
        closing: trio.Event | None = None,
        media: MediaSupport | None = None,
    ) -> None:
        self._reaper, self._secrets = reaper, secrets
        self._media = media or MediaSupport()
        self._closing = trio.Event() if closing is None else closing
        self._turns = Turns(READERS_MAX)
        self._idle: list[_Reader] = []
        self._changed = trio.Event()
        self._runs = False

    @asynccontextmanager
    async def opened(
        self,
        pieces: Sequence[bytes],
        endpoint: str | None,
        client: str,
        *,
        by_content: bool = False,
    ) -> AsyncIterator[OpenLargeRequest]:
        """A body, as far as to its model. The request has a process to itself until the block is
        left; one that has not answered by then is ended.

        Args:
            endpoint: the name of its row; None: it may be anything.
            client: whose it is. They are read in turn.
            by_content: its endpoint is the one of this name, or that of its content.

        Raises:
            ApiError: 400 or 413, with what is wrong.
        """
        async with self._lent(client) as reader:
            answer, _ = await reader.ask(Body(endpoint, by_content), pieces)
            assert isinstance(answer, Opened)
            yield OpenLargeRequest(reader, pieces, answer, self._media)

    async def translate(self, whole: bytes, how: Translation, client: str) -> bytes:
        """A whole answer with status 200, for an Ollama client.

        Raises:
            ApiError: 502, it is no answer; 413, that cannot be told.
        """
        async with self._lent(client) as reader:
            _, pieces = await reader.ask(how, [whole])
        # Joining bytes lets go of the interpreter, so in a thread it is in nobody's way.
        return await trio.to_thread.run_sync(b"".join, pieces)

    @asynccontextmanager
    async def _lent(self, client: str) -> AsyncIterator[_Reader]:
        async with self._turns.of(client):
            reader = self._idle.pop() if self._idle else self._new()
            try:
                yield reader
            finally:
                if self._runs and reader.is_ready:
                    reader.idle_since = trio.current_time()
                    self._idle.append(reader)
                    self._changed.set()
                else:
                    await reader.end()

    def _new(self) -> _Reader:
        return _Reader(self._reaper, self._secrets, self._closing)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End what has had nothing to do for a while, and on cancellation all of it."""
        try:
            self._runs = True
            task_status.started()
            while True:
                oldest = min((r.idle_since for r in self._idle), default=math.inf)
                with trio.move_on_at(oldest + IDLE_S):
                    await self._changed.wait()
                self._changed = trio.Event()
                due = trio.current_time() - IDLE_S
                for reader in [r for r in self._idle if r.idle_since <= due]:
                    self._idle.remove(reader)
                    await reader.end()
        finally:
            self._runs = False
            while self._idle:
                await self._idle.pop().end()


class _Reader:
    """One process, for the one request that has it."""

    def __init__(
        self, reaper: Reaper | None, secrets: Collection[str], closing: trio.Event
    ) -> None:
        self._reaper, self._secrets, self._closing = reaper, secrets, closing
        self._process: trio.Process | None = None
        self.is_ready = True  # for a question
        self.idle_since = 0.0

    async def ask(
        self, question: Question, payload: Sequence[bytes] = ()
    ) -> tuple[Answer, list[bytes]]:
        """Its answer, and the bytes that follow.

        Raises:
            ApiError: what it says is wrong; 413, it did not answer; 503, as the gateway stops.
        """
        self.is_ready = False
        try:
            with trio.fail_after(QUESTION_S):
                answer, after = await self._ask(question, payload)
        except (trio.TooSlowError, OSError, EOFError, msgspec.DecodeError) as error:
            if self._closing.is_set():
                raise shutting_down() from None
            log.warning("a large body could not be read: %s", repr(error))
            message = f"the body could not be read within {QUESTION_S:g} s"
            raise ApiError(413, message, code="body_too_complex") from None
        self.is_ready = True
        if isinstance(answer, Refused):
            raise ApiError(
                answer.status, answer.message, answer.error_type,
                code=answer.code, param=answer.param,
            )  # fmt: skip
        return answer, after

    async def _ask(
        self, question: Question, payload: Sequence[bytes]
    ) -> tuple[Answer, list[bytes]]:
        process = await self._started()
        assert process.stdin is not None
        try:
            await process.stdin.send_all(head_of(question, sum(map(len, payload))))
            for piece in payload:
                await process.stdin.send_all(piece)
        except trio.BrokenResourceError:
            raise EOFError from None
        lengths = await self._receive(LENGTHS.size)
        head_bytes, payload_bytes = LENGTHS.unpack(b"".join(lengths))
        head = b"".join(await self._receive(head_bytes))
        after = await self._receive(payload_bytes)
        return msgspec.msgpack.decode(head, type=Answer), after

    async def _receive(self, size: int) -> list[bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        pieces = []
        while size:
            piece = bytes(await self._process.stdout.receive_some(min(size, _PIECE_BYTES)))
            if not piece:
                raise EOFError
            pieces.append(piece)
            size -= len(piece)
        return pieces

    async def _started(self) -> trio.Process:
        if self._process is not None and self._process.poll() is not None:
            await self.end()  # killed by someone between two requests
        if self._process is None:
            try:
                self._process = await start_helper(_COMMAND, inherited(self._secrets), self._reaper)
            except OSError as error:
                log.error("a process that reads large bodies cannot be started: %s", error)
                message = "large requests cannot be read at the moment"
                raise ApiError(
                    503, message, "service_unavailable", code="overloaded", retry_after_s=1.0
                ) from None
            log.debug("a reader of large bodies is pid %d", self._process.pid)
        return self._process

    async def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end_helper(process, self._reaper)


def _body(pieces: Sequence[bytes], places: Sequence[Place] | None) -> LargeBody:
    if places is None:
        return LargeBody(pieces, None)
    return LargeBody(pieces, {name: (begin, end) for name, begin, end in places})


def _split(pieces: Sequence[bytes], size: int) -> tuple[bytes, list[bytes]]:
    """The first bytes, joined, and the rest."""
    first: list[bytes] = []
    for place, piece in enumerate(pieces):
        if not size:
            return b"".join(first), [*pieces[place:]]
        first.append(piece[:size])
        size -= len(first[-1])
        if len(first[-1]) < len(piece):
            return b"".join(first), [piece[len(first[-1]) :], *pieces[place + 1 :]]
    return b"".join(first), []
