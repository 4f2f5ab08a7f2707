"""From an engine type to what the gateway knows about such engines, loaded when needed."""

from __future__ import annotations

import importlib
from typing import cast

from trio_gateway.config.engine_types import EngineType
from trio_gateway.engine.clients.kind import EngineKind


def kind_of(engine: EngineType) -> EngineKind:
    module, _, name = engine.kind.partition(":")
    return cast(type[EngineKind], getattr(importlib.import_module(module), name))()
