"""The gateway as `trio-gateway serve` runs it, but with a scheduler of `policies.py`.

python -m benchmarks.policy_gateway POLICY CONFIG
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from benchmarks.policies import POLICIES
from trio_gateway.config.locate import load_config
from trio_gateway.engine.manager import EngineManager
from trio_gateway.log import configure_logging
from trio_gateway.server.gateway import Gateway
from trio_gateway.server.gateway_server import GatewayServer


async def run(policy: str, file: Path) -> None:
    config, _ = load_config(file)
    gateway = Gateway(config, EngineManager(config, scheduler=POLICIES[policy]))
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(GatewayServer(gateway).run)
        for address in addresses:
            print(f"listening on {address.url}", flush=True)


if __name__ == "__main__":
    configure_logging(verbose=False)
    trio.run(run, sys.argv[1], Path(sys.argv[2]))
