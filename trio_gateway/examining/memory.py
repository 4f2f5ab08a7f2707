"""Findings about memory: what variants and pools may take, and what the devices have. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trio_gateway.config.engine_args import runs_elsewhere
from trio_gateway.config.schema import GatewayConfig, ModelConfig, VariantConfig
from trio_gateway.config.server_options import GPU_LAYERS
from trio_gateway.config.sizes import format_over, format_size
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.examining.finding import Finding, error, warning
from trio_gateway.examining.seen import Seen
from trio_gateway.hardware.devices import Device

_HOLDERS_MAX = 3


def on_memory(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    for fault in seen.reading.faults:
        yield warning(fault, "repair or restart the driver")
    yield from _on_devices(config, seen)
    for model in config.models:
        for variant in model.variants:
            yield from _on_variant(config, model, variant, seen)
    yield from _on_pools(config, seen)


def _on_devices(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    """Those that a pool names and this machine does not have."""
    if seen.reading.faults or not seen.reading.devices:
        return
    here = ", ".join(device.id for device in seen.reading.devices)
    for pool in config.pools.values():
        for device in pool.devices:
            if seen.reading.device(device.name) is None:
                yield error(
                    f"pools.{pool.name}.devices: there is no {device.name} on this machine",
                    f"it has {here}",
                )


def _on_variant(
    config: GatewayConfig, model: ModelConfig, variant: VariantConfig, seen: Seen
) -> Iterator[Finding]:
    need, source = seen.memory.get(VariantKey(model.name, variant.name), (0, ""))
    devices = _devices(config, model, variant, seen)
    if not need or not devices:
        return
    where = f'model "{model.name}", variant {variant.name}: it needs'
    total, free = sum(d.total_bytes for d in devices), sum(d.free_bytes for d in devices)
    names = " and ".join(f"{d.id} ({d.name})" for d in devices)
    has = "has" if len(devices) == 1 else "have"
    if need > total:
        needs, limit = format_over(need, total)
        yield warning(
            f"{where} {needs} ({source}), and {names} {has} {limit}",
            "give it a smaller context, cache type or quantization, or fewer layers on the GPU",
        )
    elif need > free and not _is_used_by_us(seen):
        needs, limit = format_over(need, free)
        yield warning(
            f"{where} {needs} ({source}), and of {names} {limit} are free now{_held_by(devices)}",
            "end what holds it before a request needs this variant",
        )


def _devices(
    config: GatewayConfig, model: ModelConfig, variant: VariantConfig, seen: Seen
) -> tuple[Device, ...]:
    """Those that an engine of it computes with, as far as its pool or its arguments say so."""
    if not variant.has_process or runs_elsewhere(variant.binary):
        return ()
    pool = config.pools.get(model.pool)
    if pool is not None and pool.devices:
        found = [seen.reading.device(device.name) for device in pool.devices]
        return tuple(device for device in found if device is not None)
    gpus, layers = seen.reading.gpus, variant.engine_args.number(GPU_LAYERS)
    if gpus and layers != 0:
        return gpus
    return tuple(device for device in seen.reading.devices if not device.is_gpu)


def _held_by(devices: tuple[Device, ...]) -> str:
    holders = [h for device in devices for h in device.holders if h.held_bytes]
    holders.sort(key=lambda holder: -(holder.held_bytes or 0))
    named = [f"{h.name or h.pid} {format_size(h.held_bytes or 0)}" for h in holders[:_HOLDERS_MAX]]
    return f" (held by {', '.join(named)})" if named else ""


def _is_used_by_us(seen: Seen) -> bool:
    """What a gateway's engines hold, it can free."""
    return bool(seen.gateways) or any(port.is_gateway for port in seen.ports.values())


def _on_pools(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    for pool in config.pools.values():
        models = [model for model in config.models if model.pool == pool.name]
        each = [(model, variant) for model in models for variant in model.variants]
        devices = {d.id: d for both in each for d in _devices(config, *both, seen)}
        if not devices:
            continue
        total = sum(device.total_bytes for device in devices.values())
        has = f"{' and '.join(devices)} {'has' if len(devices) == 1 else 'have'}"
        if pool.memory_bytes is not None:
            if pool.memory_bytes > total:
                may, limit = format_over(pool.memory_bytes, total)
                yield warning(
                    f"pools.{pool.name}.memory is {may}, and {has} {limit}",
                    "lower it, and leave some for the desktop and the driver",
                )
            continue
        if pool.is_limited:
            continue  # by what the devices have
        largest = sorted((_largest(model, seen) for model in models), reverse=True)[: pool.engines]
        if len(largest) > 1 and sum(largest) > total:
            may, limit = format_over(sum(largest), total)
            yield warning(
                f"the pool {pool.name} lets {pool.engines} engines run, which may take {may} "
                f"together, and {has} {limit}",
                f"limit pools.{pool.name}.memory",
            )


def _largest(model: ModelConfig, seen: Seen) -> int:
    keys = [VariantKey(model.name, variant.name) for variant in model.variants]
    return max(seen.memory.get(key, (0, ""))[0] for key in keys)
