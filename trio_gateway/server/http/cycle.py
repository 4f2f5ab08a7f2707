"""Cycle: one HTTP/1.1 request and its answer, as an ASGI app sees them."""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from urllib.parse import unquote

import trio

from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.http.http1 import RequestHead, body_of
from trio_gateway.server.http.inbox import Inbox
from trio_gateway.server.http.types import ClientGone, Facts, Header, Message, Scope
from trio_gateway.server.http.wire import Wire

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"
_CLOSE = b"connection: close\r\n"
_NO_BODY = frozenset({204, 304})
# What may stand in an answer's head: nothing that would end a line. ASGI wants names in small
# letters, and by these it is known what was said about the length.
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9a-z]+: [\t\x20-\x7e\x80-\xff]*\r\n)*")
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class Framing(enum.Enum):
    """How the client is told where the body of an answer ends."""

    LENGTH = enum.auto()
    CHUNKS = enum.auto()
    END_OF_CONNECTION = enum.auto()  # for HTTP/1.0, if the length is not known
    NONE = enum.auto()  # there is no body


def scope_of(head: RequestHead, facts: Facts) -> Scope:
    """What an app is told of a request, before anything of its body."""
    path, _, query = head.target.partition(b"?")
    return {
        "type": "http",
        "http_version": head.version,
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "method": head.method,
        "scheme": facts.scheme,
        "path": unquote(path.decode("ascii")) if b"%" in path else path.decode("ascii"),
        "raw_path": path,
        "query_string": query,
        "root_path": facts.root_path,
        "headers": head.headers,
        "client": facts.client,
        "server": facts.server,
        "state": {**facts.state},
        "extensions": {},
    }


class Cycle:
    """Head and first body are one send. `began` once the app has said anything, `has_sent` once the
    client may have got something of it, `is_complete` once the app has said all. `is_over`: the app
    is done with it, so that there is nothing to cancel.

    Args:
        scope: in which the app is called, and many others are that come after it.
        keeps_alive: whether the connection may go on after this.
        began_at: when the head had come, in seconds of trio's clock.
        default_headers: gives the lines of each answer, such as its date.
        gone: set when the client goes away.
        turn: which all connections share that have much to read in small parts.
    """

    # The class's own until they change: to set them all costs each request 25 bytecodes.
    fault: ApiError | None = None
    began = has_sent = is_complete = is_cancelled = is_over = False
    status = 0
    headers: Sequence[Header] = ()
    _framing: Framing | None = None  # None: the head is not sent
    _in_chunks = False  # the head is sent, and the end is not
    _left = 0  # of the announced length
    _any_given = _all_given = False

    def __init__(
        self,
        head: RequestHead,
        wire: Wire,
        inbox: Inbox,
        scope: trio.CancelScope,
        *,
        keeps_alive: bool,
        began_at: float,
        default_headers: Callable[[], bytes],
        gone: trio.Event,
        turn: trio.Lock,
    ) -> None:
        self.keeps_alive, self.began_at = keeps_alive, began_at
        self.body = body_of(head)
        self.head, self._scope = head, scope
        self._wire, self._inbox, self._gone = wire, inbox, gone
        self._default_headers = default_headers
        self._reading_turn = turn
        # The one case in which two tasks may want to send.
        self._turn = trio.Lock() if head.expects_continue else None

    def cancel(self, reason: str) -> None:
        """End what the app does for it."""
        if not self.is_over:
            self.is_cancelled = True
            self._scope.cancel(reason=reason)

    # -- the request --------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next of the body; then, once the client is gone, that it is.

        Raises:
            ApiError: the client was told to go before all of it had come.
        """
        if self._all_given:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        if self.body.pauses:  # of all bodies in tiny chunks one goes on at a time
            async with self._reading_turn:
                await trio.lowlevel.checkpoint()
        elif self._any_given:
            await trio.lowlevel.checkpoint()  # a large body must not keep others from theirs
        self._any_given = True
        while (piece := self._take()) is None:
            if self._inbox.is_over:
                self._inbox.raise_fault()
                await self._gone.wait()
                return {"type": "http.disconnect"}
            await self._ask_for_it()
            await self._inbox.more()
        if self.fault is not None:
            await trio.sleep_forever()
        return {"type": "http.request", "body": piece, "more_body": not self._all_given}

    def receive_now(self) -> bytes | None:
        """What `receive` would give of the body without waiting; None if it would wait. With the
        last of it `body.complete`."""
        return None if self.body.pauses else self._take()

    def _take(self) -> bytes | None:
        if self._all_given:
            return None
        try:
            data = self.body.take(self._inbox.buffer)
        except ApiError as error:
            self.fault = error
            self.cancel(reason="the body is malformed")
            return b""
        self._all_given = self.body.complete
        return data if data or self._all_given else None

    async def _ask_for_it(self) -> None:
        """A client that waits for permission to send the body gets it now."""
        if self._turn is None:
            return
        async with self._turn:
            turn, self._turn = self._turn, None
            assert turn is not None
            if not self.began:
                await self._wire.send(_CONTINUE)

    async def skip_body(self) -> None:
        """Read what is left of it, and throw it away; until its end, or the client's."""
        while not self.body.complete:
            await trio.lowlevel.checkpoint()
            if not self.body.take(self._inbox.buffer) and not self.body.complete:
                if self._inbox.is_over:
                    return
                await self._inbox.more()

    # -- the answer ---------------------------------------------------------------------------

    def send(self, message: Message) -> Awaitable[None]:
        """Raises ClientGone. A checkpoint, except for the start, which waits for the body.

        The middle of a stream goes to the wire without a coroutine of its own: with what else
        that leaves out, it is 4 % of what a chunk costs.
        """
        if self._in_chunks and message.get("more_body") and (data := message.get("body")):
            return self._wire.send(b"%x\r\n%b\r\n" % (len(data), data))
        return self._send(message)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            if not self.began or self.is_complete:
                raise RuntimeError("a body before the start of the answer, or after its end")
            is_first = not self.has_sent
            data = self._framed(message.get("body", b""), not message.get("more_body"))
            self.has_sent = True
            try:
                if self._turn is not None:
                    async with self._turn:
                        await self._wire.send(data)
                elif data:
                    await self._wire.send(data)
                else:
                    await trio.lowlevel.checkpoint()
            except trio.Cancelled:  # nothing of it was sent, or nothing more can be
                self.has_sent, self.is_complete = not is_first, False
                raise
            except ClientGone:
                self.is_complete = False
                raise
            finally:
                is_open = not self.is_complete and self._turn is None
                self._in_chunks = is_open and self._framing is Framing.CHUNKS
        elif message["type"] == "http.response.start":
            if self.began:
                raise RuntimeError("a second start of the answer")
            self.status, self.headers, self.began = message["status"], message["headers"], True
        else:
            raise RuntimeError(f"an unexpected message: {message['type']}")

    def start_over(self) -> None:
        """Forget an answer of which nothing was sent: there will be another one."""
        if self.has_sent:
            raise RuntimeError("the client may have got something of this answer")
        self.began, self._framing, self._in_chunks = False, None, False

    def _framed(self, data: bytes, ends: bool) -> bytes:
        """The bytes to send for a part of the body."""
        head, framing = b"", self._framing
        if framing is None:
            framing = self._choose_framing(len(data) if ends else None)
            head = self._head_bytes(framing)
            self._framing = framing
        self.is_complete = ends
        if framing is Framing.LENGTH:
            self._left -= len(data)
            if self._left < 0 or (ends and self._left):
                self.is_complete = False  # the connection is closed without an end
                raise RuntimeError("the body is not as long as its Content-Length")
        elif framing is Framing.CHUNKS:
            if not ends:
                return head + b"%x\r\n%b\r\n" % (len(data), data) if data else head
            return head + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else _LAST_CHUNK)
        elif framing is Framing.NONE:
            return head
        else:
            self._wire.is_cut_short = True  # until all of it is sent
        return head + data

    def _choose_framing(self, whole_length: int | None) -> Framing:
        """`whole_length`: of a body that is sent in one piece."""
        known = dict(self.headers)
        said = known.get(b"content-length")
        length = None if said is None else int(said)
        if b"connection" in known and known[b"connection"].lower() == b"close":
            self.keeps_alive = False
        if self._turn is not None and not self.body.complete:
            # It may now send the body, or not. What comes next could be read in two ways.
            self.keeps_alive = False
        if self.head.method == "HEAD" or self.status in _NO_BODY:
            if self.status == 204:  # where a length is not allowed
                self.headers = [h for h in self.headers if h[0] != b"content-length"]
            return Framing.NONE
        if length is None and whole_length is not None:
            length = whole_length
            self.headers = [*self.headers, (b"content-length", b"%d" % length)]
        if length is not None:
            self._left = length
            return Framing.LENGTH
        if self.head.version == "1.0":
            self.keeps_alive = False
            return Framing.END_OF_CONNECTION
        return Framing.CHUNKS

    def _head_bytes(self, framing: Framing) -> bytes:
        fields = b"\r\n".join([*map(b": ".join, self.headers), b""])
        # One that ends its line early would be two.
        if _FIELDS.fullmatch(fields) is None or fields.count(b"\n") > len(self.headers):
            raise RuntimeError("a header of the answer is not valid")
        line = _STATUS_LINES.get(self.status) or b"HTTP/1.1 %d \r\n" % self.status
        chunked = _CHUNKED if framing is Framing.CHUNKS else b""
        close = b"" if self.keeps_alive or _says_close(self.headers) else _CLOSE
        return b"".join((line, fields, self._default_headers(), chunked, close, b"\r\n"))


def _says_close(headers: Sequence[Header]) -> bool:
    return any(name == b"connection" for name, _ in headers)
