"""Upload: a request's body, which is read as fast as it is used, and no faster.

Quart's own body takes in whatever comes, so a large one would be in memory while an engine reads it
slowly. Here the body stays in the connection until something asks for more: the socket's buffers
fill up, and the client waits. Quart is told that the body is empty.

Every request has one, so the limits of bodies and what a shutdown does to them are here only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import trio

from trio_gateway.server.api.errors import ApiError, body_timeout, body_too_large, shutting_down
from trio_gateway.server.budget import Hold
from trio_gateway.server.http.cycle import Cycle
from trio_gateway.server.http.types import CYCLE_KEY, FIRST_KEY, Message, Receive, Scope

# A body that drips would hold an engine, which is not stopped for others while it has leases.
LEAST_BYTES_PER_S = 16 * 1024
_PIECE_BYTES = 16 * 1024


class Uploads:
    """The limits of bodies, and the requests that are under way.

    Args:
        max_bytes: of one body; None: no limit.
        timeout_s: how long a client may pause in a body, and how long it may take in total,
            for which it gets a second more for each `LEAST_BYTES_PER_S`.
    """

    def __init__(self, max_bytes: int | None = None, timeout_s: float = math.inf) -> None:
        self.max_bytes, self.timeout_s = max_bytes, timeout_s
        self.is_closed = False
        self._open: set[Upload] = set()

    def begin(self, scope: Scope, receive: Receive, hold: Hold) -> Upload:
        """The request's upload. `end` it."""
        upload = Upload(scope, receive, hold, self.max_bytes, self.timeout_s)
        self._open.add(upload)
        return upload

    def end(self, upload: Upload) -> None:
        self._open.discard(upload)

    def close(self) -> None:
        """The gateway stops: a request that is still being sent gets its 503 now."""
        self.is_closed = True
        for upload in [*self._open]:
            upload.refuse(shutting_down())


class Upload:
    """`length` as the client announced it, None if it is not known. `taken`: bytes read until now.
    `hold`: what the request holds of the budget."""

    # The class's own until they change: each request has one of these, and few change any but two.
    taken = 0
    complete = False
    _refusal: ApiError | None = None
    _reading: trio.CancelScope | None = None
    _waited_s = 0.0
    _quart_was_told = False

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        hold: Hold,
        max_bytes: int | None,
        timeout_s: float,
    ) -> None:
        self.hold = hold
        self._cycle: Cycle | None = scope.get(CYCLE_KEY)
        if self._cycle is None:
            self.length = _length_of(scope)
        else:
            self.length = self._cycle.head.length
        self._receive, self._max_bytes, self._timeout_s = receive, max_bytes, timeout_s
        if max_bytes is not None and self.length is not None and self.length > max_bytes:
            self._refusal = body_too_large(max_bytes)

    async def read_all(self) -> bytes:
        """The whole body, or what is left of it. Raises as `receive` does, and NoRoom."""
        pieces = await self.read_pieces()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_pieces(self) -> list[bytes]:
        """The same as it came, small pieces put together: each that is kept costs some bytes more
        than it has. Raises as `read_all` does."""
        length = self.length
        if length is not None and self._refusal is None:
            self.hold.take(length - self.taken)
        pieces: list[bytes] = []
        small = bytearray()
        while piece := await self.receive():
            if length is None:
                self.hold.take(len(piece))
            if self.complete and not pieces and not small:  # nearly all of them come in one
                return [piece]
            if not small and (len(piece) >= _PIECE_BYTES or self.complete):
                pieces.append(piece)
                continue
            small += piece
            if len(small) >= _PIECE_BYTES:
                pieces.append(bytes(small))
                small = bytearray()
        if small:
            pieces.append(bytes(small))
        return pieces

    async def receive(self) -> bytes:
        """The next piece, `b""` when the body is complete. If the client goes away, its connection
        cancels the request.

        Raises:
            ApiError: 413, 408, and 503 when the gateway stops. Again and again, once it did.
        """
        while self._refusal is None:
            if self.complete:
                return b""
            cycle = self._cycle
            if cycle is not None and (piece := cycle.receive_now()) is not None:
                # It was there already: neither a limit on the wait nor a task switch is needed.
                self._note(piece, is_last=cycle.body.complete)
                if piece and self._refusal is None:
                    return piece
                await trio.lowlevel.checkpoint()
                continue
            begun = trio.current_time()
            with trio.CancelScope() as self._reading:
                # Only waits for the client are limited, not those for an engine that takes it.
                patience_s = self._timeout_s + self.taken / LEAST_BYTES_PER_S - self._waited_s
                self._reading.deadline = begun + min(self._timeout_s, patience_s)
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    await trio.sleep_forever()  # what came is not the whole body
                body: bytes = message.get("body", b"")
                self._note(body, is_last=not message.get("more_body"))
                self._waited_s += trio.current_time() - begun
                if body and self._refusal is None:
                    return body
            if self._reading.cancelled_caught and self._refusal is None:
                self._refusal = body_timeout(self._timeout_s)
        raise self._refusal

    def _note(self, piece: bytes, *, is_last: bool) -> None:
        """A piece of the body, which may be empty."""
        self.taken = taken = self.taken + len(piece)
        if self._max_bytes is not None and taken > self._max_bytes:
            self._refusal = body_too_large(self._max_bytes)
        # With the last announced byte it is complete.
        if is_last or taken == self.length:
            self.complete = True

    def refuse(self, error: ApiError) -> None:
        """Whoever reads it gets this error, unless all of it was read."""
        if not self.complete:
            self._refusal = error
            if self._reading is not None:
                self._reading.cancel(reason=error.message)

    async def receive_for_quart(self) -> Message:
        """What Quart gets: an empty body, and nothing more. It need not watch the client, as the
        connection does, which also reads what is left of a body once its request is answered."""
        if self._quart_was_told:
            await trio.sleep_forever()
        self._quart_was_told = True
        return {"type": "http.request", "body": b"", "more_body": False}


def _length_of(scope: Scope) -> int | None:
    said: Mapping[bytes, bytes] = scope[FIRST_KEY]
    length = said.get(b"content-length", b"")
    return int(length) if length.isdigit() and b"transfer-encoding" not in said else None
