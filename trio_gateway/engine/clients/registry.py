"""From an engine type to the class that speaks to such engines, loaded when it is needed."""

from __future__ import annotations

import importlib
from typing import cast

from trio_gateway.config.engine_types import EngineType
from trio_gateway.engine.clients.client import EngineClient


def client_type_of(engine: EngineType) -> type[EngineClient]:
    module, _, name = engine.client.partition(":")
    return cast(type[EngineClient], getattr(importlib.import_module(module), name))
