"""KnownModel: a model as clients are told of it, in whatever shape."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig
from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.scheduling.model_load import ModelLoad
from trio_gateway.models.capabilities import Capability
from trio_gateway.models.model_facts import ModelFacts


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """`contexts`: tokens that one request gets, in each variant, the smallest first.
    `capabilities` None: not all are known; `likely`: those that clients are told that must be told
    something. `choice`: it stands for several models, and `model` for the first of them, under its
    name. `served`: its endpoints, as in ENDPOINT_NAMES."""

    model: ModelConfig
    facts: ModelFacts
    contexts: Sequence[int]
    load: ModelLoad
    capabilities: frozenset[Capability] | None
    likely: frozenset[Capability]
    choice: ChoiceConfig | None = None
    served: frozenset[str] = frozenset()

    @property
    def context(self) -> int:
        """Tokens that one request gets at most."""
        return max(self.contexts)
