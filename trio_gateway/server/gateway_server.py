"""GatewayServer: listeners, and the order of shutdown."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from trio_gateway.config.loader import ConfigError
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.process.open_files import raise_limit
from trio_gateway.server.gateway import Gateway, limits_of
from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.install import install
from trio_gateway.server.http.listeners import Address, ListenError
from trio_gateway.server.http.listening import Listening
from trio_gateway.server.http.whereabouts import Whereabouts
from trio_gateway.server.relay.websocket import MESSAGE_MAX_BYTES

log = logging.getLogger(__name__)


class GatewayServer:
    """Serves a gateway on the addresses of its configuration until it is told to stop.

    Args:
        whereabouts: is told where.
    """

    def __init__(self, gateway: Gateway, whereabouts: Whereabouts | None = None) -> None:
        raise_limit()  # what follows counts with it
        self._gateway, self._whereabouts = gateway, whereabouts
        self._connections = ClientConnections(
            gateway.config.server.limits, max_buffered_bytes=gateway.budget.memory.limit
        )
        self._listening = Listening(
            gateway,
            self._connections,
            gateway.closing,
            lambda: gateway.shutdown_grace_s,
            MESSAGE_MAX_BYTES,
        )

    async def run(
        self,
        *,
        task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run until `begin_shutdown`, then end in order.

        `started` with the addresses; with none if it was told to stop before it listened.

        Raises:
            ListenError: before anything was started.
        """
        install(self._connections)
        gateway, listening = self._gateway, self._listening
        listening.open(gateway.config.server)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(gateway.run)
                if gateway.closing.is_set():
                    task_status.started([])
                else:
                    gateway.reloader.serves(self._move_to)
                    async with trio.open_nursery() as serving:
                        addresses = await serving.start(listening.run)
                        self._tell(gateway.config)
                        task_status.started(addresses)
                await gateway.manager.stopped.wait()
                nursery.cancel_scope.cancel(reason="everything is stopped")
        finally:
            listening.close()
            if self._whereabouts is not None:
                self._whereabouts.forget()

    def _tell(self, config: GatewayConfig) -> None:
        if self._whereabouts is not None:
            self._whereabouts.tell(self._listening.addresses, config.server.tls)

    async def _move_to(self, config: GatewayConfig, switch: Callable[[], None]) -> None:
        """Raises ConfigError: its addresses or its certificate cannot be used."""
        try:
            await self._listening.move_to(config.server, switch)
        except ListenError as error:
            raise ConfigError([f"{config.source}: {error}"]) from None
        self._connections.take_over(config.server.limits, limits_of(config.server)[0])
        self._tell(config)

    def begin_shutdown(self, why: str) -> None:
        """The listeners close, tickets are rejected, streams have `shutdown_grace`, engines stop
        as they get free."""
        grace_s = self._gateway.shutdown_grace_s
        log.info("%s: stopping; streams have %g s to finish", why, grace_s)
        self._gateway.begin_shutdown()

    def end_now(self, why: str) -> None:
        """No grace: streams end, engines are killed."""
        log.info("%s: stopping at once", why)
        self._gateway.end_now(why)
        self._listening.end_soon()
