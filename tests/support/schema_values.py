"""A configuration as values, with a default for everything that a test does not name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trio_gateway.config.access_schema import AccessConfig
from trio_gateway.config.engine_types import LLAMACPP
from trio_gateway.config.schema import (
    EngineTimeouts,
    GatewayConfig,
    ModelConfig,
    PoolConfig,
    ServerConfig,
    VariantConfig,
)


def variant(context: int = 4096, **fields: Any) -> VariantConfig:
    return VariantConfig(
        **{
            "name": str(context),
            "binary": "fake",
            "args": (),
            "context": context,
            "connect": None,
            "env": {},
            "workdir": Path("/"),
            "parallel": None,
            "memory_bytes": None,
            "timeouts": EngineTimeouts(),
            **fields,
        }
    )


def model(name: str, *variants: VariantConfig, **fields: Any) -> ModelConfig:
    return ModelConfig(
        **{
            "name": name,
            "aliases": (),
            "engine": LLAMACPP,
            "pool": "primary",
            "variants": variants or (variant(),),
            **fields,
        }
    )


def config(
    *models: ModelConfig, pools: Mapping[str, int] | None = None, **server: Any
) -> GatewayConfig:
    limits = pools or {"primary": 1, "secondary": 1}
    access = AccessConfig(allowed_hosts=("gateway", "g"))  # as tests call it
    return GatewayConfig(
        source=Path("test.lua"),
        server=ServerConfig(**{"kv_carryover": None, "access": access, **server}),
        models=models,
        pools={name: PoolConfig(name, engines) for name, engines in limits.items()},
    )
