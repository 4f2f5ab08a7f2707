"""The gateway as an ASGI app: `create_app()`, and `app` for `hypercorn trio_gateway.app:app`.

`trio-gateway serve` runs a `Gateway` alongside hypercorn's listeners (`server/gateway_server.py`).
Under the `hypercorn` command nothing is around the server, so `HypercornApp` runs it inside the
ASGI lifespan, and passes signals on.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys

import trio
from hypercorn.utils import LifespanFailureError

from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import load_config
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.process.groups import HAS_GROUPS
from trio_gateway.engine.process.open_files import raise_limit
from trio_gateway.engine.process.single_worker import single_worker
from trio_gateway.log import configure_logging
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.install import install
from trio_gateway.server.http.scopes import below_root_path
from trio_gateway.server.http.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)


def create_app(config: GatewayConfig) -> Gateway:
    """The gateway for a checked configuration. Its `run` must run while it serves."""
    if config.server.access.is_open:
        log.warning(
            "there are no API keys, and server.allow_unauthenticated is true: anyone who can "
            "reach this gateway may use it"
        )
    return Gateway(config)


class HypercornApp:
    """The gateway under the `hypercorn` command, where the ASGI lifespan owns everything.

    hypercorn runs the app in a spawned child and tells it of a shutdown through the lifespan
    only: a SIGTERM that reaches the child itself would end it at once. So the child passes each
    SIGTERM on to its parent, which then shuts down in order, and ends when its parent is gone.
    """

    def __init__(self) -> None:
        self._gateway: Gateway | None = None
        self._nursery: trio.Nursery | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        assert self._gateway is not None
        await self._gateway(below_root_path(scope), receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        try:
            with single_worker(os.getppid()) as alone:
                if not alone:
                    raise LifespanFailureError(
                        "startup", "trio-gateway owns its engines: run hypercorn with one worker"
                    )
                await self._serve(receive, send)
        except ConfigError as error:
            sys.stderr.write("\n".join(error.mistakes) + "\n")
            raise LifespanFailureError("startup", "the configuration is not valid") from None
        except BaseExceptionGroup as group:
            # Any other exception would leave hypercorn serving an app without its engines.
            _, crash = group.split(trio.Cancelled)
            if crash is None:
                raise
            raise LifespanFailureError("serving", repr(crash.exceptions[0])) from crash
        except OSError as error:
            raise LifespanFailureError("startup", str(error)) from error

    async def _serve(self, receive: Receive, send: Send) -> None:
        raise_limit()
        connections = ClientConnections(ConnectionLimits(), counted=False)
        install(connections)  # early enough: hypercorn serves after this startup
        configure_logging()
        config, why = load_config(None)
        log.info("configuration %s (%s)", config.source, why)
        log.info("models: %s", ", ".join(m.name for m in config.models if not m.hidden))
        self._gateway = create_app(config)
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._pass_sigterm_on)
            await self._nursery.start(self._gateway.run)
            self._nursery.start_soon(self._end_with_parent)
            self._nursery.start_soon(connections.watch, self._gateway.begin_shutdown)
            await send({"type": "lifespan.startup.complete"})
            message: Message = await receive()  # lifespan.shutdown
            self._gateway.begin_shutdown()
            await self._gateway.manager.stopped.wait()
            await send({"type": message["type"] + ".complete"})
            self._nursery.cancel_scope.cancel(reason="shut down")

    async def _pass_sigterm_on(self, *, task_status: trio.TaskStatus[None]) -> None:
        in_child = multiprocessing.parent_process() is not None
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                if in_child:
                    os.kill(os.getppid(), signal.SIGTERM)
                else:
                    # `-w 0`: hypercorn knows SIGINT only. Raised outside of all tasks, where
                    # trio gives it to the main task, which is hypercorn's, and not to this one.
                    token = trio.lowlevel.current_trio_token()
                    token.run_sync_soon(signal.raise_signal, signal.SIGINT)

    async def _end_with_parent(self) -> None:
        """A parent that is killed says nothing; without this its child would hold the port."""
        parent = multiprocessing.parent_process()
        if parent is None or not HAS_GROUPS:
            return
        await trio.lowlevel.wait_readable(parent.sentinel)
        raise RuntimeError("the hypercorn command is gone")


app = HypercornApp()
