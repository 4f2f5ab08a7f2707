"""HypercornGateway: the gateway under the `hypercorn` command, where its lifespan owns everything.

`trio-gateway serve` runs a `Gateway` alongside hypercorn's listeners (`server/gateway_server.py`).
Here nothing is around the server, so the gateway runs inside the lifespan, and signals shut the
server down from in there.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from functools import partial

import trio
from hypercorn.utils import LifespanFailureError

from trio_gateway.config.access_schema import ConnectionLimits
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.locate import load_config
from trio_gateway.config.missing import missing
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.loadable import cannot_load
from trio_gateway.engine.process.groups import HAS_GROUPS
from trio_gateway.engine.process.open_files import raise_limit
from trio_gateway.engine.process.single_worker import single_worker
from trio_gateway.log import FORMAT_VARIABLE, LogFormat, configure_logging
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.http.client_connections import ClientConnections
from trio_gateway.server.http.install import install
from trio_gateway.server.http.scopes import below_root_path
from trio_gateway.server.http.types import Message, Receive, Scope, Send
from trio_gateway.service.installation import longest_stop_s
from trio_gateway.service.notifier import Notifier
from trio_gateway.stop_signals import StopSignals, terminal_is_gone
from trio_gateway.tasks import beside

log = logging.getLogger(__name__)

EXIT_FAILED = 1


class HypercornGateway:
    """An ASGI app whose `lifespan` must run while it serves.

    hypercorn runs it in a spawned child (`-w 1`), or in its own process (`-w 0`). A child that ends
    is replaced by another unless its parent was told to stop as well: so the child tells it.

    Args:
        signals: handled already, attached in the lifespan.
        create: makes the gateway of a configuration.
    """

    def __init__(self, signals: StopSignals, create: Callable[[GatewayConfig], Gateway]) -> None:
        self._signals, self._create = signals, create
        self._gateway: Gateway
        self._stop = trio.Event()  # hypercorn's worker waits for it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gateway(below_root_path(scope), receive, send)

    def begin_shutdown(self, why: str) -> None:
        """Of `Stoppable`: hypercorn closes its listeners, then ends the lifespan."""
        log.info("%s: stopping", why)
        _tell_parent()
        self._stop.set()
        self._gateway.begin_shutdown()

    def end_now(self, why: str) -> None:
        log.info("%s: stopping at once", why)
        self._stop.set()
        self._gateway.end_now(why)

    async def lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        if not trio.lowlevel.in_trio_run():  # hypercorn's worker is asyncio's by default
            why = "trio-gateway runs under Trio: start hypercorn with `--worker-class trio`"
            raise LifespanFailureError("startup", why)
        try:
            configure_logging(log_format=_log_format())
            config, why = load_config(None)
            log.info("configuration %s (%s)", config.source, why)
            for lack in missing(config):
                log.warning("%s: %s", config.source, lack.text)
            log.info("models: %s", ", ".join(m.name for m in config.models if not m.hidden))
            self._signals.attach()
            with single_worker(os.getppid()) as alone:
                if not alone:
                    raise LifespanFailureError(
                        "startup", "trio-gateway owns its engines: run hypercorn with one worker"
                    )
                await self._serve(config, receive, send)
        except ConfigError as error:
            sys.stderr.write("\n".join(error.mistakes) + "\n")
            raise LifespanFailureError("startup", "the configuration is not valid") from None
        # Any other exception would leave hypercorn serving an app without its engines, and signals
        # to nobody who listens.
        except LifespanFailureError:
            raise
        except BaseExceptionGroup as group:
            _, crash = group.split(trio.Cancelled)
            if crash is None:
                raise
            raise LifespanFailureError("serving", repr(crash.exceptions[0])) from crash
        except OSError as error:
            raise LifespanFailureError("startup", str(error)) from error
        except Exception as error:
            raise LifespanFailureError("serving", repr(error)) from error
        if not self._signals.is_ready:
            # hypercorn knows of no start that is called off: it would serve, or print a traceback.
            # All that was begun has ended by now.
            os._exit(self._signals.exit_code or EXIT_FAILED)

    async def _serve(self, config: GatewayConfig, receive: Receive, send: Send) -> None:
        raise_limit()
        connections = ClientConnections(ConnectionLimits(), counted=False)
        listening = trio.Event()
        install(
            connections, self._stop, listening
        )  # early enough: hypercorn serves after this startup
        self._gateway = gateway = self._create(config)
        _end_parent_with_its_terminal()
        reload = gateway.reloader.try_to_reload
        notifier = Notifier.of(os.environ, os.getpid(), os.getppid())
        gateway.reloader.announced = notifier.reloading
        async with (
            beside(partial(notifier.run, gateway.closing, lambda: longest_stop_s(gateway.config))),
            beside(partial(self._signals.watch, self)),
            beside(partial(self._signals.watch_reloads, reload)),
            trio.open_nursery() as nursery,
        ):
            await nursery.start(gateway.run)
            nursery.start_soon(self._end_with_parent)
            nursery.start_soon(connections.watch, gateway.begin_shutdown)
            nursery.start_soon(_tell_what_cannot_load, config)
            if not gateway.closing.is_set():
                self._signals.mark_ready()
                await send({"type": "lifespan.startup.complete"})
                nursery.start_soon(_tell_ready, listening, notifier)
                message: Message = await receive()  # lifespan.shutdown
                _end_parent_with_its_terminal()
                gateway.begin_shutdown()
                await gateway.manager.stopped.wait()
                await send({"type": message["type"] + ".complete"})
            await gateway.manager.stopped.wait()
            nursery.cancel_scope.cancel(reason="shut down")

    async def _end_with_parent(self) -> None:
        """A parent that is killed says nothing; without this its child would hold the port."""
        parent = multiprocessing.parent_process()
        if parent is None or not HAS_GROUPS:
            return
        await trio.lowlevel.wait_readable(parent.sentinel)
        self.end_now("the hypercorn command is gone")


def _log_format() -> LogFormat:
    """As `serve` takes it from the environment."""
    said = os.environ.get(FORMAT_VARIABLE, "").strip().lower()
    return LogFormat.JSON if said == LogFormat.JSON.value else LogFormat.TEXT


async def _tell_ready(listening: trio.Event, notifier: Notifier) -> None:
    await listening.wait()
    notifier.ready("ready under the hypercorn command")


async def _tell_what_cannot_load(config: GatewayConfig) -> None:
    """Takes a moment, in which requests are served already."""
    found = await trio.to_thread.run_sync(cannot_load, config)
    for lack in found:
        log.warning("%s: %s", config.source, lack.text)


def _end_parent_with_its_terminal() -> None:
    """hypercorn takes the SIGHUP of a terminal that closes as the wish for a new child."""
    if terminal_is_gone():
        _tell_parent()


def _tell_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid == os.getppid():  # not whoever adopts orphans
        os.kill(parent.pid, signal.SIGTERM)
