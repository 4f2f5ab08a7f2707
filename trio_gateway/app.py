"""The gateway as an ASGI app: `create_app()`, and `app` for `hypercorn trio_gateway.app:app`.

Importing this loads next to nothing and changes nothing. What the gateway consists of is loaded
when it is created, which under the `hypercorn` command is after signals are handled: so the time in
which one meets Python's own handlers is over before what takes long.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from trio_gateway.stop_signals import StopSignals

if TYPE_CHECKING:
    from trio_gateway.config.schema import GatewayConfig
    from trio_gateway.server.gateway import Gateway
    from trio_gateway.server.http.types import Receive, Scope, Send
    from trio_gateway.under_hypercorn import HypercornGateway

log = logging.getLogger(__name__)


def create_app(config: GatewayConfig) -> Gateway:
    """The gateway for a checked configuration. Its `run` must run while it serves."""
    from trio_gateway.config.readable_files import readable_secrets
    from trio_gateway.server.gateway import Gateway

    if config.server.access.is_open:
        log.warning(
            "there are no API keys, and server.allow_unauthenticated is true: anyone who can "
            "reach this gateway may use it"
        )
    for warning in readable_secrets(config):
        log.warning("%s", warning)
    return Gateway(config)


class HypercornApp:
    """What the `hypercorn` command calls: first with the ASGI lifespan, in which all else runs."""

    def __init__(self) -> None:
        self._inner: HypercornGateway | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            signals = StopSignals()
            signals.install()
            from trio_gateway.under_hypercorn import HypercornGateway

            self._inner = HypercornGateway(signals, create_app)
            await self._inner.lifespan(receive, send)
            return
        assert self._inner is not None
        await self._inner(scope, receive, send)


app = HypercornApp()
