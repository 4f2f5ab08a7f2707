"""A configuration as values, with a default for everything that a test does not name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trio_gateway.config.access_schema import AccessConfig
from trio_gateway.config.engine_types import LLAMACPP
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.schema import (
    EngineTimeouts,
    GatewayConfig,
    ModelConfig,
    ServerConfig,
    VariantConfig,
)
from trio_gateway.engine.scheduling.model_load import LoadState, ModelLoad
from trio_gateway.models.capabilities import capabilities_of, likely_capabilities
from trio_gateway.models.known_model import KnownModel
from trio_gateway.models.model_facts import ModelFacts


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


_UNREAD, _UNLOADED = ModelFacts(), ModelLoad(LoadState.UNLOADED)


def known_model(
    given: ModelConfig,
    facts: ModelFacts = _UNREAD,
    load: ModelLoad = _UNLOADED,
    served: frozenset[str] = frozenset(),
) -> KnownModel:
    return KnownModel(
        model=given,
        facts=facts,
        contexts=[v.context for v in given.variants],
        load=load,
        capabilities=capabilities_of(given, facts, served),
        likely=likely_capabilities(given, facts, served),
        served=served,
    )
