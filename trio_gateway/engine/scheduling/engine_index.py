"""EngineIndex: the engines of each model and of each pool, the first that was started first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from trio_gateway.engine.scheduling.engine_view import EngineView

_NO_ENGINES: Mapping[int, EngineView] = {}


class EngineIndex:
    """Those on their way out included."""

    def __init__(self) -> None:
        self._of_model: dict[str, dict[int, EngineView]] = {}
        self._of_pool: dict[str, dict[int, EngineView]] = {}

    def add(self, engine: EngineView) -> None:
        self._of_model.setdefault(engine.key.model, {})[engine.id] = engine
        self._of_pool.setdefault(engine.facts.pool, {})[engine.id] = engine

    def remove(self, engine: EngineView) -> None:
        del self._of_model[engine.key.model][engine.id], self._of_pool[engine.facts.pool][engine.id]

    def make_again(self, engines: Iterable[EngineView]) -> None:
        """Another configuration may have moved engines to other pools."""
        self._of_model, self._of_pool = {}, {}
        for engine in engines:
            self.add(engine)

    def of_model(self, model: str) -> Collection[EngineView]:
        return self._of_model.get(model, _NO_ENGINES).values()

    def in_pool(self, pool: str) -> Collection[EngineView]:
        return self._of_pool.get(pool, _NO_ENGINES).values()
