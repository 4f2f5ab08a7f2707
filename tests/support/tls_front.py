"""A TLS proxy before somebody's plain port, which lets only those in that have the token."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio

UNAUTHORIZED = b"HTTP/1.1 401 No\r\nContent-Length: 8\r\nConnection: close\r\n\r\nno token"


class TlsFront:
    """Run `serve` in a thread. `url`: where it is, once `ready`. `passed`: connections that had the
    token; each is asked for it once, with its first request."""

    def __init__(self, tls: ssl.SSLContext, token: str, target: tuple[str, int]) -> None:
        self._tls, self._target = tls, target
        self._wanted = f"authorization: bearer {token}\r\n".encode().lower()
        self.ready = threading.Event()
        self.url, self.passed = "", 0
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None

    async def serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                listen = partial(trio.serve_tcp, self._handle, 0, host="127.0.0.1")
                (listener, *_) = await nursery.start(listen)
                self.url = f"https://localhost:{listener.socket.getsockname()[1]}"
                self.ready.set()

    def stop(self) -> None:
        assert self._token is not None
        self._token.run_sync_soon(partial(self._scope.cancel, reason="the test is over"))

    async def _handle(self, stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with secure:
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (some := await secure.receive_some()):
                        return
                    head += some
                if self._wanted not in head.lower():
                    await secure.send_all(UNAUTHORIZED)
                    return
                self.passed += 1
                await self._pass_on(secure, head)

    async def _pass_on(self, client: Any, head: bytes) -> None:
        async with await trio.open_tcp_stream(*self._target) as target:
            await target.send_all(head)
            async with trio.open_nursery() as nursery:

                async def copy(source: Any, sink: Any) -> None:
                    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        while some := await source.receive_some():
                            await sink.send_all(some)
                    nursery.cancel_scope.cancel(reason="one side has closed")

                nursery.start_soon(copy, client, target)
                nursery.start_soon(copy, target, client)


@contextmanager
def tls_front(tls: ssl.SSLContext, token: str, target: tuple[str, int]) -> Iterator[TlsFront]:
    front = TlsFront(tls, token, target)
    thread = threading.Thread(target=trio.run, args=(front.serve,))
    thread.start()
    try:
        front.ready.wait()
        yield front
    finally:
        front.stop()
        thread.join()
