"""The gateway as `trio-gateway serve` runs it, but with a scheduler of `policies.py`.

python -m benchmarks.policy_gateway POLICY CONFIG
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

from benchmarks.policies import POLICIES
from trio_gateway.config.locate import load_config
from trio_gateway.engine.manager import EngineManager
from trio_gateway.log import configure_logging
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.gateway_server import GatewayServer
from trio_gateway.stop_signals import StopSignals
from trio_gateway.tasks import beside


async def run(signals: StopSignals, policy: str, file: Path) -> None:
    signals.attach()
    config, _ = load_config(file)
    gateway = Gateway(config, EngineManager(config, scheduler=POLICIES[policy]))
    server = GatewayServer(gateway)
    async with beside(partial(signals.watch, server)), trio.open_nursery() as nursery:
        addresses = await nursery.start(server.run)
        signals.mark_ready()
        for address in addresses:
            print(f"listening on {address.url}", flush=True)


if __name__ == "__main__":
    configure_logging(verbose=False)
    stop_signals = StopSignals()
    stop_signals.install()
    trio.run(run, stop_signals, sys.argv[1], Path(sys.argv[2]))
