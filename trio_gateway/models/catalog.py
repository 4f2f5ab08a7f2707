"""ModelCatalog: what clients may know of a model: its configuration, its files and its engines."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.info import EngineInfo
from trio_gateway.engine.overview import Overview
from trio_gateway.models.capabilities import capabilities_of, likely_capabilities
from trio_gateway.models.known_model import KnownModel
from trio_gateway.models.model_facts import ModelFacts
from trio_gateway.models.model_files import ModelFiles


class ModelCatalog:
    """Remembers what engines said of models whose files cannot be read here: those that an engine
    downloads, or that are in a container."""

    def __init__(self, overview: Overview) -> None:
        self._overview, self._files = overview, ModelFiles()
        self._said: dict[str, EngineInfo] = {}  # by each model's last engine

    async def of(self, models: Sequence[ModelConfig]) -> list[KnownModel]:
        """Of each, in their order. Files are read in a thread."""
        facts = await self._files.facts_of(models)
        return [self._known(*pair) for pair in zip(models, facts, strict=True)]

    def _known(self, model: ModelConfig, facts: ModelFacts) -> KnownModel:
        engine = self._overview.engine_of(model.name)
        if engine is not None and engine.info is not None:
            self._said[model.name] = engine.info
        if (said := self._said.get(model.name)) is not None:
            facts = msgspec.structs.replace(
                facts, engine_template=said.template, engine_media=said.media
            )
        served = self._overview.endpoints_of(model)
        return KnownModel(
            model=model,
            facts=facts,
            contexts=self._overview.contexts_of(model.name),
            load=self._overview.load_of(model.name),
            capabilities=capabilities_of(model, facts, served),
            likely=likely_capabilities(model, facts, served),
        )
