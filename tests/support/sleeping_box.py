"""A machine with a server that sleeps, on loopback: it wakes when it is called by UDP."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.support.openai_site import Site
from tests.support.sockets import HOST
from trio_gateway.config.wake_schema import WakeOnLan

MAC = "0a:1b:2c:3d:4e:5f"


class SleepingBox:
    """`calls`: what came by UDP. `called` is set at the next call; once `may_wake` is set, a call
    wakes it. `site`: what answers then."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.site = Site("box")
        self.calls: list[bytes] = []
        self.called, self.may_wake = trio.Event(), trio.Event()
        self.may_wake.set()
        self._nursery = nursery
        self._awake: trio.CancelScope | None = None
        self._udp = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    @property
    def wake(self) -> WakeOnLan:
        return WakeOnLan(MAC, HOST, self.call_port)

    @property
    def call_port(self) -> int:
        port: int = self._udp.getsockname()[1]
        return port

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self._udp.bind((HOST, 0))
        held = trio.socket.socket()  # bound and deaf: nobody else gets the port
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await held.bind((HOST, 0))
        self.site.port = held.getsockname()[1]
        with self._udp, held:
            task_status.started()
            while True:
                self.calls.append(await self._udp.recv(2048))
                self.called.set()
                await self.may_wake.wait()
                if self._awake is None:
                    await self.wake_up()

    async def wake_up(self) -> None:
        listeners = await trio.open_tcp_listeners(self.site.port, host=HOST)
        self._awake = trio.CancelScope()
        self._nursery.start_soon(self._serve, listeners, self._awake)

    async def _serve(self, listeners: list[trio.SocketListener], awake: trio.CancelScope) -> None:
        async def handle(stream: trio.SocketStream) -> None:
            async with stream:
                await self.site(stream)

        with awake:
            await trio.serve_listeners(handle, listeners)

    def fall_asleep(self) -> None:
        """Its connections break, and it can be called again."""
        assert self._awake is not None, "it is awake"
        self._awake.cancel(reason="it sleeps")
        self._awake, self.called = None, trio.Event()


@asynccontextmanager
async def sleeping_box() -> AsyncIterator[SleepingBox]:
    async with trio.open_nursery() as nursery:
        box = SleepingBox(nursery)
        await nursery.start(box.run)
        yield box
        nursery.cancel_scope.cancel(reason="the test is over")
