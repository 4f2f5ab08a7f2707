"""Placement: how an engine is told which devices of its pool it is to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from trio_gateway.config.pool_schema import VARIABLES
from trio_gateway.config.schema import VariantConfig
from trio_gateway.hardware.devices import Device


def placed(
    variant: VariantConfig, devices: Sequence[str], known: Mapping[str, Device]
) -> VariantConfig:
    """The variant with what names them in its environment; `known`: by their ids, what was read of
    devices. `metal` and `cpu` have no variable: there is only one of each."""
    numbers: dict[str, list[str]] = {}
    for name in devices:
        kind, _, number = name.partition(":")
        device = known.get(name)
        selector = device.selector if device is not None and device.selector else number
        numbers.setdefault(kind, []).append(selector)
    env: dict[str, str] = {}
    for kind, selectors in numbers.items():
        if kind not in VARIABLES:
            continue
        value = ",".join(selectors)
        if kind == "cuda" and all(selector.isdecimal() for selector in selectors):
            env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML and nvidia-smi count
        env[VARIABLES[kind][0]] = f"level_zero:{value}" if kind == "sycl" else value
    return msgspec.structs.replace(variant, env={**variant.env, **env}) if env else variant
