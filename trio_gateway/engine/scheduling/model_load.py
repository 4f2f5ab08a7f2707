"""ModelLoad: what of a model is in memory, in the words of llama.cpp's router. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from trio_gateway.engine.scheduling.activity import Activity
from trio_gateway.engine.scheduling.engine_view import EngineView
from trio_gateway.engine.scheduling.lifecycle import EngineState

_NOTHING = Activity()
_LOADED = (EngineState.READY, EngineState.DRAINING)


class LoadState(enum.Enum):
    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"


class ModelLoad(msgspec.Struct, frozen=True):
    """`variant`: the largest that is loaded; None: none is. `has_failed`: no engine of the model
    runs, and its last one failed. `activity`: what it has to do."""

    state: LoadState
    variant: str | None = None
    has_failed: bool = False
    activity: Activity = _NOTHING

    @property
    def word(self) -> str:
        return "failed" if self.has_failed else self.state.value


def model_load(
    engines: Sequence[EngineView], activity: Activity = _NOTHING, *, has_failed: bool
) -> ModelLoad:
    """Of a model's engines, the smallest first. `has_failed`: whether a variant's last one has."""
    loaded = [engine for engine in engines if engine.state in _LOADED]
    if loaded:
        return ModelLoad(LoadState.LOADED, loaded[-1].key.variant, activity=activity)
    if any(engine.state is EngineState.STARTING for engine in engines):
        return ModelLoad(LoadState.LOADING, activity=activity)
    return ModelLoad(LoadState.UNLOADED, has_failed=has_failed, activity=activity)
