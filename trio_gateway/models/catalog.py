"""ModelCatalog: what clients may know of a model: its configuration, its files and its engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig
from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.engine.info import EngineInfo
from trio_gateway.engine.overview import Overview
from trio_gateway.models.capabilities import Capability, capabilities_of, likely_capabilities
from trio_gateway.models.known_choice import known_choice, members_of
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

    async def listed(
        self, config: GatewayConfig, allows: Callable[[str], bool]
    ) -> list[KnownModel]:
        """The models that are to be listed for whoever may use those that it `allows`, and behind
        them the choices among such."""
        choices = [(one, members_of(one, config, allows)) for one in config.choices]
        choices = [(one, members) for one, members in choices if members and not one.hidden]
        shown = [model for model in config.models if not model.hidden and allows(model.name)]
        behind = [model for _, members in choices for model in members]
        wanted = list(dict.fromkeys(model.name for model in (*shown, *behind)))
        by_name = {model.name: model for model in (*shown, *behind)}
        known = dict(zip(wanted, await self.of([by_name[n] for n in wanted]), strict=True))
        return [
            *(known[model.name] for model in shown),
            *(known_choice(one, [known[m.name] for m in members]) for one, members in choices),
        ]

    async def of_choice(
        self, choice: ChoiceConfig, config: GatewayConfig, allows: Callable[[str], bool]
    ) -> KnownModel:
        """Raises ValueError: none of its models is allowed."""
        return known_choice(choice, await self.of(members_of(choice, config, allows)))

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
            capabilities=_said_elsewhere(model) or capabilities_of(model, facts, served),
            likely=_said_elsewhere(model) or likely_capabilities(model, facts, served),
            served=served,
        )


def _said_elsewhere(model: ModelConfig) -> frozenset[Capability] | None:
    """What another gateway says that its model can do; None: nothing that is known here."""
    said = model.capabilities or ()
    return frozenset(known for known in Capability if known.value in said) or None
