"""Configured: the configuration as far as engines go by it, and what another one changes in it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trio_gateway.config.difference import is_started_otherwise
from trio_gateway.config.schema import GatewayConfig, ModelConfig, VariantConfig
from trio_gateway.engine.clients.kind import EngineKind
from trio_gateway.engine.clients.registry import kind_of
from trio_gateway.engine.scheduling.events import Reconfigured, VariantFacts, VariantKey
from trio_gateway.engine.variant_facts import facts_of


class Configured:
    """`take_over` makes it another's; who was handed the mappings sees that.

    `kinds`: by the name of its type, what is known of such engines. `pools`: by the models' names,
    those of earlier configurations included, as their engines may still run. `keeps_apart`: what
    one API key's prompts left in an engine's cache is for that key only.

    Args:
        kinds: a test may pass fakes.
    """

    def __init__(
        self, config: GatewayConfig, kinds: Mapping[str, EngineKind] | None = None
    ) -> None:
        self._given_kinds = kinds
        self.kinds: dict[str, EngineKind] = {}
        self.pools: dict[str, str] = {}
        self._hold(config)

    def _hold(self, config: GatewayConfig) -> None:
        self.config = config
        self.keeps_apart = config.server.keeps_owners_apart
        self.kinds |= self._given_kinds or {
            model.engine.value: kind_of(model.engine) for model in config.models
        }
        self.pools |= {model.name: model.pool for model in config.models}
        self.variants: dict[VariantKey, tuple[ModelConfig, VariantConfig]] = {
            VariantKey(model.name, variant.name): (model, variant)
            for model in config.models
            for variant in model.variants
        }

    def take_over(self, config: GatewayConfig) -> Reconfigured:
        """Hold this one from now on; what the scheduler is to be told."""
        before, kept_apart = self.variants, self.keeps_apart
        self._hold(config)
        moved = self.keeps_apart is not kept_apart
        return Reconfigured(
            variants=self.facts(),
            pools=config.pools,
            changed=frozenset(
                key
                for key, now in self.variants.items()
                if key in before
                and (is_started_otherwise(*before[key], *now) or (moved and self._has_slots(*now)))
            ),
            queue_limit=config.server.queue_limit,
            queue_timeout_s=config.server.queue_timeout_s,
            fairness_window_s=config.server.fairness_window_s,
        )

    def _has_slots(self, model: ModelConfig, _: VariantConfig) -> bool:
        return self.kind(model).has_slots

    def kind(self, model: ModelConfig) -> EngineKind:
        return self.kinds[model.engine.value]

    def facts(self) -> tuple[VariantFacts, ...]:
        """What the scheduler is told of each variant."""
        pools = self.config.pools
        return tuple(
            facts_of(key, model, variant, self.kind(model), pools.get(model.pool))
            for key, (model, variant) in self.variants.items()
        )


def retimed(running: VariantConfig, now: VariantConfig) -> VariantConfig:
    """With what holds for an engine that runs already: its times, and how it is asked to stop."""
    return msgspec.structs.replace(running, timeouts=now.timeouts, stop_command=now.stop_command)
