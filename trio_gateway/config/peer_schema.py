"""Other gateways whose models are offered here: the frozen struct for such an entry."""

from __future__ import annotations

import msgspec

from trio_gateway.config.engine_options import EngineOptions, EngineTimeouts


class PeerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Other gateways, at one or several URLs, whose models are offered here. `name`: what they are
    called here. `models` None: all that they list."""

    name: str
    options: EngineOptions
    timeouts: EngineTimeouts
    pool: str
    parallel: int | None
    models: tuple[str, ...] | None = None
    hidden: bool = False
