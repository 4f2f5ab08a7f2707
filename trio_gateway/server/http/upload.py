"""Upload: a request's body that is read as fast as it is used, and no faster.

Quart's own body takes in whatever comes, so a large one would lie in memory while an engine reads
it slowly. Here the body stays in the connection until somebody asks for more: the socket's buffers
fill up, and the client waits. Quart is told that the body is empty.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_gateway.server.api.errors import ApiError, body_timeout, body_too_large, shutting_down
from trio_gateway.server.http.types import Message, Receive, Scope

# A body that drips would hold an engine, which is not stopped for others while it has leases.
LEAST_BYTES_PER_S = 16 * 1024


class Uploads:
    """Which requests are read as uploads, within which limits, and those that are being read."""

    def __init__(
        self, wanted: Callable[[Scope], bool], max_bytes: int | None, timeout_s: float
    ) -> None:
        self._wanted = wanted
        self.max_bytes, self.timeout_s = max_bytes, timeout_s
        self._open: set[Upload] = set()

    def begin(self, scope: Scope, receive: Receive) -> Upload | None:
        """The request's upload, if it is one. `end` it."""
        if not self._wanted(scope):
            return None
        upload = Upload(scope, receive, self.max_bytes, self.timeout_s)
        self._open.add(upload)
        return upload

    def end(self, upload: Upload) -> None:
        self._open.discard(upload)

    def refuse_all(self) -> None:
        """The gateway stops: a request that is still being sent gets its 503 now."""
        for upload in [*self._open]:
            upload.refuse(shutting_down())


# A body that drips would hold an engine, which is not stopped for others while it has leases.
LEAST_BYTES_PER_S = 16 * 1024


class Upload:
    """`length` as the client announced it, None if it did not. `taken`: bytes read until now.

    `over` is set once the body was read to its end, or its client is gone.
    """

    def __init__(
        self, scope: Scope, receive: Receive, max_bytes: int | None, timeout_s: float
    ) -> None:
        self.length = _length_of(scope)
        self.taken = 0
        self.complete = self.gone = False
        self.over = trio.Event()
        self._receive, self._max_bytes, self._timeout_s = receive, max_bytes, timeout_s
        self._refusal: ApiError | None = None
        self._reading = trio.CancelScope()
        self._quart_was_told = False
        self._waited_s = 0.0
        if max_bytes is not None and self.length is not None and self.length > max_bytes:
            self._refusal = body_too_large(max_bytes)

    async def receive(self) -> bytes:
        """The next piece, `b""` when the body is complete. A client that goes away ends the
        request; then this never returns.

        Raises:
            ApiError: 413, 408, and 503 when the gateway stops. Again and again, once it did.
        """
        while self._refusal is None:
            if self.complete:
                return b""
            begun = trio.current_time()
            with trio.CancelScope() as self._reading:
                # Only the waits for the client count, not those for an engine that takes it.
                patience_s = self._timeout_s + self.taken / LEAST_BYTES_PER_S - self._waited_s
                self._reading.deadline = begun + min(self._timeout_s, patience_s)
                piece = await self._next()
                self._waited_s += trio.current_time() - begun
                self.taken += len(piece)
                if self._max_bytes is not None and self.taken > self._max_bytes:
                    self._refusal = body_too_large(self._max_bytes)
                elif piece:
                    return piece
            if self._reading.cancelled_caught and self._refusal is None:
                self._refusal = body_timeout(self._timeout_s)
        raise self._refusal

    async def _next(self) -> bytes:
        """A message's part of the body; it may be empty."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            self.over.set()
            await trio.sleep_forever()  # Quart learns of it, and cancels the request
        if not message.get("more_body"):
            self.complete = True
            self.over.set()
        body: bytes = message.get("body", b"")
        return body

    async def drain(self) -> None:
        """Read what is left and throw it away."""
        while not self.over.is_set():
            await self._next()

    def refuse(self, error: ApiError) -> None:
        """Whoever reads it gets this error, unless all of it was read."""
        if not self.complete:
            self._refusal = error
            self._reading.cancel(reason=error.message)

    async def receive_for_quart(self) -> Message:
        """What Quart gets: an empty body, and the client's going away."""
        if not self._quart_was_told:
            self._quart_was_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.over.wait()
        return {"type": "http.disconnect"} if self.gone else await self._receive()


def _length_of(scope: Scope) -> int | None:
    headers = dict(scope["headers"])
    value = headers.get(b"content-length", b"")
    return int(value) if value.isdigit() and b"transfer-encoding" not in headers else None
