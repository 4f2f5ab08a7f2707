"""Where an engine listens: fixed by the configuration, or a port that the gateway picks."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio

from trio_gateway.config.schema import VariantConfig
from trio_gateway.engine.clients.client import EngineClient
from trio_gateway.engine.clients.kind import EngineKind, local_host
from trio_gateway.engine.errors import OWN_LIMITS, out_of_sockets
from trio_gateway.engine.process import ports

# A predecessor's helper that was killed a moment ago may still hold the port for an instant.
PORT_FREE_S = 1.0
PORT_POLL_S = 0.01


class AddressUnusable(Exception):
    """The engine cannot listen where it should; the text is for the client."""


def fixed_address(variant: VariantConfig, kind: EngineKind) -> tuple[str, int] | None:
    """Where the configuration puts this variant's engine; None: the gateway picks a port."""
    if variant.connect is None:
        return kind.fixed_address(variant.engine_args)
    parts = urlsplit(variant.connect)
    return local_host(parts.hostname or ""), parts.port or 80


async def hold_address(
    variant: VariantConfig, kind: EngineKind, taken: set[int]
) -> tuple[str, int]:
    """Where this variant's engine is to listen, once nothing else does there.

    Args:
        taken: ports that other engines hold, or are about to listen on, one set for all: no port
            is picked twice while in use. This one is added.

    Raises:
        AddressUnusable: it is in use and stays so, or it is not an address of this machine.
    """
    address = fixed_address(variant, kind)
    try:
        if address is None:
            host = kind.listen_host(variant.engine_args)
            # Not looked at again: while that is waited for, another engine could pick the same.
            address = host, ports.pick_free_port(taken, host)
        elif await _stays_in_use(*address):
            raise AddressUnusable(port_taken(address[1], variant, kind))
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno in OWN_LIMITS:
            raise AddressUnusable(out_of_sockets(error)) from None
        reason = f"its address cannot be used: {error}; check `connect`, or --host in `args`"
        raise AddressUnusable(reason) from None
    taken.add(address[1])
    return address


async def _stays_in_use(host: str, port: int) -> bool:
    free_by = trio.current_time() + PORT_FREE_S
    while in_use := await ports.address_in_use(host, port):
        if trio.current_time() >= free_by:
            break
        await trio.sleep(PORT_POLL_S)
    return in_use


def port_taken(port: int, variant: VariantConfig, kind: EngineKind) -> str:
    """For the client whose engine cannot listen on this port."""
    holder = ports.describe_port_holder(port)
    cure = "stop that process"
    if variant.connect is not None:
        cure += ", or change `connect`"
    elif kind.fixed_address(variant.engine_args) is not None:
        cure += ", or change --port in `args`"
    return f"port {port} is held by {holder}, so the engine cannot listen there; {cure}"


def remote_client(variant: VariantConfig, kind: EngineKind) -> EngineClient:
    """The client of a variant that runs elsewhere.

    Raises:
        AddressUnusable: its certificates cannot be read.
    """
    options = variant.options
    try:
        return kind.client(options.urls[0], options)
    except OSError as error:
        reason = f"its `ca_file` {options.ca_file} cannot be used: {error}"
        raise AddressUnusable(reason) from None


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
