"""Counts what a gateway in this process does for a request: its calls, decodes and tasks.

Only what its own tasks do: those that were started in `counted_tasks`, and theirs. A client and an
engine of the test are left out, in the same process though they are.
"""

from __future__ import annotations

import json
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, NamedTuple

import msgspec
import trio

from trio_gateway.server.http.types import Message, Receive, Scope, Send

AsgiMethod = Callable[[Any, Scope, Receive, Send], Awaitable[None]]
_counted: ContextVar[bool] = ContextVar("_counted", default=False)
_SENDS = ("send", "sendto", "sendmsg", "sendfile")
_RECEIVES = ("recv", "recv_into", "recvfrom", "recvmsg")
_LOADS = json.loads.__code__


class Counts(NamedTuple):
    """`receives`, `sends`: of ASGI. Of sockets only calls that moved bytes: how often one is tried
    in vain depends on which side is faster. `decodes`: of JSON, parts of a text included.
    `tasks`: started."""

    receives: int
    sends: int
    socket_receives: int
    socket_sends: int
    connects: int
    decodes: int
    tasks: int


@contextmanager
def counted_tasks(is_counted: bool = True) -> Iterator[None]:
    """Whether tasks that are started in this block are, with all that they start."""
    token = _counted.set(is_counted)
    try:
        yield
    finally:
        _counted.reset(token)


class CallCounter(trio.abc.Instrument):
    """`story`: what was counted, and from where, for a test that fails."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self.story: list[str] = []

    def counts(self) -> Counts:
        return Counts(*(self._seen[name] for name in Counts._fields))

    @contextmanager
    def running(self) -> Iterator[CallCounter]:
        """In this block. The profiler of the tests' process, if it has one, is set aside."""
        self._seen.clear()
        self.story.clear()
        before = sys.getprofile()
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self._profile)
        try:
            yield self
        finally:
            sys.setprofile(before)
            trio.lowlevel.remove_instrument(self)

    def watched(self, call: AsgiMethod) -> AsgiMethod:
        """An ASGI app's `__call__`, with each call of its `receive` and `send` counted."""

        async def watched(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
            async def counted_receive() -> Message:
                self._note("receives", "")
                return await receive()

            async def counted_send(message: Message) -> None:
                self._note("sends", message["type"])
                await send(message)

            await call(app, scope, counted_receive, counted_send)

        return watched

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.context.get(_counted):
            self._note("tasks", task.name)

    def _profile(self, frame: FrameType, event: str, function: Any) -> None:
        """Functions of C are seen wherever they are called, decoders made long ago included."""
        if event == "call":
            if frame.f_code is _LOADS and _counted.get():
                self._note("decodes", _place(frame.f_back))
            return
        kind = _kind_of(function) if event in ("c_call", "c_return") else None
        # A connect that does not wait raises, and is under way nevertheless.
        counts = "c_call" if kind == "connects" else "c_return"
        if kind is not None and event == counts and _counted.get():
            self._note(kind, _place(frame))

    def _note(self, kind: str, what: str) -> None:
        self._seen[kind] += 1
        self.story.append(f"{kind}: {what}")


def _kind_of(function: Any) -> str | None:
    owner, name = getattr(function, "__self__", None), function.__name__
    if isinstance(owner, socket.socket):
        if name in _SENDS:
            return "socket_sends"
        if name in _RECEIVES:
            return "socket_receives"
        return "connects" if name in ("connect", "connect_ex") else None
    decodes = isinstance(owner, msgspec.json.Decoder) and name.startswith("decode")
    return "decodes" if decodes or function is msgspec.json.decode else None


def _place(frame: FrameType | None) -> str:
    """The innermost line of ours."""
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("trio_gateway."):
            return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "none of ours"
