"""Recorder: bodies and answers of the next requests of a model, in memory, for a while.

For whoever has to see what a client really sends. It is off until an admin switches it on, never
holds more than `MAX_BYTES`, forgets all once its time is up, and writes nothing anywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec
import trio

from trio_gateway.bus import Bus
from trio_gateway.server.feed.rows import Captures, CapturesChanged
from trio_gateway.server.http.scopes import RequestState

log = logging.getLogger(__name__)

MAX_BYTES = 10 * 2**20  # of all requests and answers together


class CapturesWanted(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be recorded. `model` may be left out if there is only one."""

    model: str | msgspec.UnsetType = msgspec.UNSET
    count: int = 10
    seconds: float = 600.0


class CapturedText(msgspec.Struct):
    """The beginning of it; `left_out`: bytes that are not."""

    text: str
    bytes: int
    left_out: int


class CaptureRow(msgspec.Struct):
    """`arrived_s`: Unix time. `status`: 0 until the answer begins. `answer`: as its engine gave it,
    or the gateway in its place; `is_over`: there comes no more of it."""

    id: str
    endpoint: str
    model: str
    arrived_s: float
    status: int
    content_type: str
    request: CapturedText
    answer: CapturedText
    is_over: bool


class _Kept:
    """The beginning of a body."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size, self.left_out = 0, 0

    def add(self, piece: bytes, room: int) -> int:
        """How much of it was taken. What is kept has no hole in it."""
        taken = 0 if self.left_out else min(len(piece), max(room, 0))
        if taken:
            self._pieces.append(piece[:taken])
        self.size += taken
        self.left_out += len(piece) - taken
        return taken

    def row(self) -> CapturedText:
        text = b"".join(self._pieces).decode("utf-8", "replace")
        return CapturedText(text, self.size, self.left_out)


class _Recording:
    """What is recorded since it was switched on."""

    def __init__(self, model: str, count: int, seconds: float) -> None:
        self.model, self.left, self.held = model, count, 0
        self.until, self.until_s = trio.current_time() + seconds, time.time() + seconds
        self.captures: list[Capture] = []

    def forget(self) -> None:
        """Also what requests that are under way hold of it."""
        self.left = 0
        for capture in self.captures:
            capture.forget()
        self.captures.clear()

    def keep(self, kept: _Kept, piece: bytes) -> None:
        self.held += kept.add(piece, MAX_BYTES - self.held)


class Capture:
    """One request and its answer. An AnswerObserver, which wakes up once the answer begins: by then
    it is known whether the request is for the model."""

    def __init__(
        self, recording: _Recording, state: RequestState, endpoint: str, body: Sequence[bytes]
    ) -> None:
        self._recording: _Recording | None = recording
        self._record, self._endpoint = state.record, endpoint
        self._body: Sequence[bytes] = body
        self._request, self._answer = _Kept(), _Kept()
        self._is_kept = self._is_over = False
        self._status, self._content_type = 0, ""

    def begins(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if not self._is_kept and not self._claim():
            return
        self._status = status
        said = (value for name, value in headers if name == b"content-type")
        self._content_type = next(said, b"").decode("latin-1")

    def _claim(self) -> bool:
        recording, body = self._recording, self._body
        self._body = ()
        if recording is None or self._record.model != recording.model or recording.left <= 0:
            self._recording = None
            return False
        self._is_kept = True
        recording.left -= 1
        recording.captures.append(self)
        for piece in body:
            recording.keep(self._request, piece)
        return True

    def continues(self, piece: bytes) -> None:
        if self._is_kept and self._recording is not None:
            self._recording.keep(self._answer, piece)

    def completes(self) -> None:
        """It is over when the request is."""

    def finish(self) -> None:
        """The request is over."""
        self._is_over, self._recording, self._body = True, None, ()

    def forget(self) -> None:
        self._recording, self._is_kept, self._body = None, False, ()
        self._request, self._answer = _Kept(), _Kept()

    def row(self) -> CaptureRow:
        record = self._record
        return CaptureRow(
            id=record.id,
            endpoint=self._endpoint,
            model=record.model or "",
            arrived_s=round(record.arrived_s, 3),
            status=self._status,
            content_type=self._content_type,
            request=self._request.row(),
            answer=self._answer.row(),
            is_over=self._is_over,
        )


class Recorder:
    """`run` in a task: it forgets in time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._recording: _Recording | None = None
        self._news = trio.Event()

    @property
    def is_on(self) -> bool:
        """Whether the next request may be recorded."""
        return self._recording is not None and self._recording.left > 0

    def begin(self, model: str, count: int, seconds: float, by: str) -> None:
        """Record the next requests of the model of this name; what was recorded before is gone.
        `by`: who wants it."""
        if self._recording is not None:
            self._recording.forget()
        self._recording = _Recording(model, count, seconds)
        log.warning(
            "captures are on: bodies and answers of the next %d requests of %s are kept in memory "
            "for %g s, as %s has asked", count, model, seconds, by,
        )  # fmt: skip
        self._tell()

    def end(self, why: str) -> None:
        """Forget all of it, if there is anything."""
        if self._recording is not None:
            self._recording.forget()
            self._recording = None
            log.info("captures are off, and what was recorded is gone: %s", why)
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._bus.publish(CapturesChanged())

    def watch(self, state: RequestState, endpoint: str, body: Sequence[bytes]) -> None:
        """A request that may be one of them."""
        assert self._recording is not None
        capture = Capture(self._recording, state, endpoint, body)
        state.observers.append(capture)
        state.stack.callback(capture.finish)

    def facts(self) -> Captures | None:
        recording = self._recording
        if recording is None:
            return None
        until_s = round(recording.until_s, 3)
        return Captures(recording.model, recording.left, until_s, recording.held)

    def rows(self) -> list[CaptureRow]:
        """The oldest first."""
        recording = self._recording
        return [] if recording is None else [capture.row() for capture in recording.captures]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            news = self._news = trio.Event()
            recording = self._recording
            if recording is None:
                await news.wait()
                continue
            with trio.CancelScope(deadline=recording.until):
                await news.wait()
            if self._recording is recording and trio.current_time() >= recording.until:
                self.end("their time is up")
