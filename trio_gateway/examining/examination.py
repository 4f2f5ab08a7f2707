"""From a configuration, and what was seen of this machine, to findings. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trio_gateway.config.access_schema import is_loopback
from trio_gateway.config.pool_memory import UNKNOWN_MEMORY
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.config.sizes import format_size
from trio_gateway.engine.loadable import cannot_load
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.examining.finding import Finding, error, in_order, note, warning
from trio_gateway.examining.memory import on_memory
from trio_gateway.examining.models import on_models
from trio_gateway.examining.programs import on_programs
from trio_gateway.examining.seen import Seen

OPEN_FILES_MIN = 4096  # three for each connection of a busy day, some for each engine
CACHES = "server.kv_carryover"


def findings(config: GatewayConfig, seen: Seen) -> list[Finding]:
    """All of them, what is worst first."""
    found = [warning(text) for text in config.notes if not _is_settled(text, config, seen)]
    found += [warning(text) for text in seen.readable]
    found += [error(lack.text, lack.cure) for lack in seen.missing]
    found += [error(lack.text) for lack in cannot_load(config, seen.programs)]
    found += on_programs(config, seen)
    found += on_models(config, seen)
    found += on_memory(config, seen)
    found += _on_ports(config, seen)
    found += _on_gateways(seen)
    found += _on_access(config, seen)
    found += _on_folders(config, seen)
    found += _on_limits(seen)
    return in_order(found)


def _is_settled(text: str, config: GatewayConfig, seen: Seen) -> bool:
    """Whether a remark says that the memory of a variant is unknown that was measured since."""
    return UNKNOWN_MEMORY in text and any(
        f'"{model.name}"' in text
        and all(VariantKey(model.name, variant.name) in seen.memory for variant in model.variants)
        for model in config.models
    )


def _on_ports(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    for address in (*config.server.listen, *config.server.listen_unix):
        if (port := seen.ports.get(str(address))) is None:
            continue
        if port.is_gateway:
            who = f", {port.holder}" if port.holder else ""
            yield warning(
                f"a gateway runs at {address} already{who}, so no other can listen there",
                "`trio-gateway reload` gives it a changed configuration",
            )
        elif port.holder:
            yield error(
                f"{address} is in use by {port.holder}",
                "stop that, or choose another port in server.listen_v4",
            )
        else:
            yield error(f"{address} cannot be listened on: {port.fault}", "choose another address")
    yield from _on_engines_ports(config, seen)
    options = [variant.options for model in config.models for variant in model.variants]
    options += (peer.options for peer in config.peers)
    may_sleep = {url for each in options if each.ways_to_wake for url in each.urls}
    for url, why in seen.unreachable.items():
        what = f"{url} cannot be reached: {why}"
        if url in may_sleep:
            yield note(what, "if its machine sleeps, the first request wakes it")
        else:
            yield warning(what, "start what is there, or correct the URL")


def _on_engines_ports(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    if seen.gateways or any(port.is_gateway for port in seen.ports.values()):
        return  # they may be its engines
    listeners = {str(address) for address in config.server.listen}
    for address, port in seen.ports.items():
        if address not in listeners and not address.startswith("unix:") and port.holder:
            yield warning(
                f"{address}, the address of an engine, is in use by {port.holder}",
                "stop that, or leave the port to the gateway",
            )


def _on_gateways(seen: Seen) -> Iterator[Finding]:
    at_address = {port.pid for port in seen.ports.values() if port.is_gateway}
    for gateway in seen.gateways:
        if gateway.pid in at_address:
            continue
        is_one = gateway.engines == 1
        engines = f"{gateway.engines or 'no'} engine{'' if is_one else 's'}"
        holds = f" that hold{'s' if is_one else ''} {format_size(gateway.held_bytes)}"
        holds = holds if gateway.held_bytes else ""
        tell = warning if gateway.engines else note
        yield tell(
            f"another gateway runs (pid {gateway.pid}), with {engines}{holds}",
            "neither knows what the other loads: stop it, or limit the `memory` of the pools",
        )


def _on_access(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    server = config.server
    if seen.tls_fault:
        yield error(f"server.tls: {seen.tls_fault}", "use a certificate and the key that it is for")
    wide = [str(a) for a in server.listen if not is_loopback(a.host)]
    if not wide:
        return
    where = " and ".join(wide)
    if server.access.is_open:
        yield warning(
            f"whoever reaches {where} may use every model (allow_unauthenticated)",
            "give server.api_keys, or listen on 127.0.0.1",
        )
    keys = server.access.api_keys
    if keys and not any(key.admin for key in keys):
        yield note(
            "no API key is an admin's, so nobody may use the page and most commands",
            "write `admin = true` in one of server.api_keys",
        )


def _on_folders(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    for name, (path, folder) in seen.folders.items():
        if folder.fault:
            yield warning(
                f"{name}: nothing can be written in {path}: {folder.fault}",
                "make it writable, or name another folder",
            )
        elif name == CACHES and folder.free_bytes is not None:
            most = config.server.kv_carryover.max_bytes if config.server.kv_carryover else 0
            if folder.free_bytes < most:
                yield warning(
                    f"{CACHES}: {path} may take {format_size(most)}, and its disk has "
                    f"{format_size(folder.free_bytes)} left",
                    "lower kv_carryover.max_size, or name another folder",
                )


def _on_limits(seen: Seen) -> Iterator[Finding]:
    if seen.open_files < OPEN_FILES_MIN:
        yield warning(
            f"no more than {seen.open_files} files may be open, and each connection takes three",
            "raise the hard limit (`ulimit -Hn`, LimitNOFILE of a service)",
        )
