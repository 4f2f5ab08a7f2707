"""DumpWriter: per request one file, request and answer readable, never in the request's way.

A request collects its record in memory; one task writes finished records in a worker thread. A
disk that is full, slow or read-only costs the dump, with a line in the log, and nothing else.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from trio_gateway.server.api import sse
from trio_gateway.server.budget import Budget, Hold, NoRoom

log = logging.getLogger(__name__)

SUFFIX = ".dump.txt"
FIRST_LINE = "trio-gateway dump, format 1"
# More of an answer than this is left out, and the file says so.
ANSWER_MAX_BYTES = 16 * 1024**2
REQUEST_MAX_BYTES = 16 * 1024**2
# What is longer is not indented: nobody reads it, and while it is made nobody else is answered.
READABLE_MAX_BYTES = 1024**2
# Records that wait for a slow disk; beyond, new ones are dropped.
PENDING_MAX_BYTES = 256 * 1024**2
_FLUSH_S = 2.0
READABLE_DEPTH = 64
_NO_BRACKETS = bytes(b for b in range(256) if b not in b"[]{}")
_OUR_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z_[0-9a-f]+" + re.escape(SUFFIX))


class DumpLoss(enum.Enum):
    """Why there is no file of a request."""

    DISK_SLOW = "disk_slow"
    DISK_FAILED = "disk_failed"
    STOPPED = "stopped"


class DumpRecord:
    """One request and its answer, while it happens. An AnswerObserver."""

    def __init__(
        self,
        writer: DumpWriter,
        request_id: str,
        endpoint: str,
        request: bytes,
        hold: Hold,
        folder: Path,
    ) -> None:
        self._writer, self._hold, self.folder = writer, hold, folder
        self.request_id, self.endpoint, self.request = request_id, endpoint, request
        self.started = time.time()
        self.facts: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._size = 0
        self.left_out = 0

    def begins(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.facts["status"] = str(status)
        for name, value in headers:
            if name == b"content-type":
                self.facts["content type"] = value.decode("latin-1")
            elif name.startswith(b"x-gateway-"):
                self.facts[name.decode("latin-1").title()] = value.decode("latin-1")

    def continues(self, piece: bytes) -> None:
        # What is kept is the answer's beginning, with no hole in it.
        kept = b"" if self.left_out else piece[: ANSWER_MAX_BYTES - self._size]
        try:
            self._hold.take(len(kept))
        except NoRoom:
            kept = b""
        self.left_out += len(piece) - len(kept)
        self._size += len(kept)
        if kept:
            self._pieces.append(kept)

    def completes(self) -> None:
        """It is written when the request is over, complete or not."""

    def finish(self) -> None:
        """Hand it to the writer; never blocks, never raises."""
        self._writer.submit(self)

    @property
    def answer(self) -> bytes:
        return b"".join(self._pieces)

    @property
    def size_bytes(self) -> int:
        return self._size + len(self.request)


class DumpWriter:
    """Writes records into `folder`; `run` in a task. None: nobody wants any. What waits is held of
    the budget. `written` and `lost` are records."""

    def __init__(self, folder: Path | None, budget: Budget, *, clear: bool) -> None:
        self.folder, self._clear = folder, clear
        self._made = folder  # by `run`; a reload may name another one
        self._send, self._receive = trio.open_memory_channel[DumpRecord](10_000)
        self._pending = budget.hold("dumps")
        self._failing = False
        self.written = 0
        self.lost: Counter[DumpLoss] = Counter()

    def begin(self, request_id: str, endpoint: str, request: bytes, hold: Hold) -> DumpRecord:
        """`hold`: of the request, for as much of its answer as is kept. It goes to the folder of
        this moment."""
        assert self.folder is not None
        return DumpRecord(self, request_id, endpoint, request, hold, self.folder)

    def submit(self, record: DumpRecord) -> None:
        size = record.size_bytes
        try:
            if self._pending.in_memory + size > PENDING_MAX_BYTES:
                raise trio.WouldBlock
            self._pending.take(size)
        except (trio.WouldBlock, NoRoom):
            self._lose(record, DumpLoss.DISK_SLOW, "the disk is too slow")
            return
        try:
            self._send.send_nowait(record)
        except trio.WouldBlock:
            self._pending.give(size)
            self._lose(record, DumpLoss.DISK_SLOW, "the disk is too slow")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._pending.give(size)
            self._lose(record, DumpLoss.STOPPED, "the gateway is stopping")

    def _lose(self, record: DumpRecord, loss: DumpLoss, why: str) -> None:
        self.lost[loss] += 1
        log.error("the dump of request %s is lost: %s", record.request_id, why)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; then what is pending, within a short time."""
        await trio.to_thread.run_sync(self._prepare)
        # Shielded: the last requests before a shutdown are the ones that people want to read. The
        # deadline comes with the cancel.
        flush = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_all, flush)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                flush.deadline = trio.current_time() + _FLUSH_S
                self._send.close()

    async def _write_all(self, until: trio.CancelScope) -> None:
        with until:
            async for record in self._receive:
                await self._write(record)
        if lost := self._receive.statistics().current_buffer_used:
            log.error("%d dumps are lost: the disk is too slow", lost)
        self._receive.close()

    async def _write(self, record: DumpRecord) -> None:
        try:
            # Abandoned only when the time to flush is over: a disk that hangs holds up no exit.
            if record.folder != self._made:
                self._made = record.folder
                await trio.to_thread.run_sync(_make_folder, record.folder, abandon_on_cancel=True)
            await trio.to_thread.run_sync(_write_file, record, abandon_on_cancel=True)
            self._failing = False
            self.written += 1
        except OSError as error:
            self.lost[DumpLoss.DISK_FAILED] += 1
            if not self._failing:  # one line, not one for each request
                log.error("dumps cannot be written to %s: %s", record.folder, error.strerror)
            self._failing = True
        finally:
            self._pending.give(record.size_bytes)

    def _prepare(self) -> None:
        if (folder := self.folder) is None:
            return
        try:
            _make_folder(folder)
            if self._clear:
                removed = clear_dumps(folder)
                log.info("removed %d dumps from %s", removed, folder)
        except OSError as error:
            log.error("dumps_dir %s: %s; dumps may be lost", folder, error.strerror)


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def beginning_of(pieces: Sequence[bytes]) -> bytes:
    """As much of a body as a dump takes."""
    size, kept = 0, []
    for piece in pieces:
        kept.append(piece[: REQUEST_MAX_BYTES - size])
        size += len(kept[-1])
    return b"".join(kept)


def clear_dumps(folder: Path) -> int:
    """Remove the files that a gateway wrote there, and no others; how many."""
    removed = 0
    for file in folder.iterdir():
        if not _OUR_NAME.fullmatch(file.name) or file.is_symlink() or not file.is_file():
            continue
        with file.open("rb") as opened:
            ours = opened.readline().strip() == FIRST_LINE.encode()
        if ours:
            file.unlink()
            removed += 1
    return removed


def _write_file(record: DumpRecord) -> None:
    moment, fraction = time.gmtime(record.started), int(record.started % 1 * 1e6)
    stamp = time.strftime("%Y%m%dT%H%M%S", moment) + f".{fraction:06d}Z"
    path = record.folder / f"{stamp}_{record.request_id}{SUFFIX}"
    text = render(record).encode("utf-8", "surrogatepass")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
    except OSError:
        path.unlink(missing_ok=True)  # half a dump would look like a whole one
        raise


def render(record: DumpRecord) -> str:
    """The file's text."""
    answer = record.answer
    head = {"request id": record.request_id, "endpoint": record.endpoint, **record.facts}
    lines = [FIRST_LINE, *(f"{name}: {value}" for name, value in head.items())]
    lines += ["", "=== request ===", _readable(record.request), ""]
    if sse.is_event_stream(record.facts.get("content type", "")):
        lines += ["=== answer, assembled ===", sse.assembled_text(answer), ""]
        lines += ["=== answer, as streamed ===", answer.decode("utf-8", "replace")]
    else:
        lines += ["=== answer ===", _readable(answer)]
    if record.left_out:
        lines.append(f"=== {record.left_out} more bytes are left out ===")
    return "\n".join(lines) + "\n"


def _readable(body: bytes) -> str:
    """Indented, if it is JSON of a sane shape: indenting costs depth times size."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        if len(body) <= READABLE_MAX_BYTES and _depth(body) <= READABLE_DEPTH:
            return msgspec.json.format(body, indent=2).decode("utf-8", "replace")
    return body.decode("utf-8", "replace")


def _depth(body: bytes) -> int:
    """How deep the brackets nest; those in strings count too, which errs upward."""
    depth = deepest = 0
    for bracket in body.translate(None, delete=_NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > READABLE_DEPTH:
            break
    return deepest
