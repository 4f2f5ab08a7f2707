"""ModelHandler: the models, as lists and one by one; loading, unloading and pinning them."""

from __future__ import annotations

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.model_lists import as_anthropic_list, as_anthropic_model
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay


class ModelHandler:
    def __init__(
        self,
        manager: EngineManager,
        selector: ModelSelector,
        counter: TokenCounter,
        preparer: Preparer,
        relay: Relay,
    ) -> None:
        self._manager, self._selector = manager, selector
        self._counter, self._preparer, self._relay = counter, preparer, relay

    def _find(self, call: Call) -> ModelConfig:
        """The model in the path."""
        return self._preparer.find(call.values["model"], call.permissions).model

    async def handle_models_list(self, endpoint: Endpoint, call: Call) -> Answer:
        allows = call.permissions.allows
        models = [m for m in self._selector.list_models() if allows(m["id"])]
        if call.header_values(b"anthropic-version"):
            return json_answer(as_anthropic_list(models))
        return json_answer({"object": "list", "data": models})

    async def handle_model_info(self, endpoint: Endpoint, call: Call) -> Answer:
        described = self._selector.describe(self._find(call))
        if call.header_values(b"anthropic-version"):
            return json_answer(as_anthropic_model(described))
        return json_answer(described)

    async def handle_model_facts(self, endpoint: Endpoint, call: Call) -> Answer:
        """A model as in the list, and what its answers taught about its counts."""
        found = self._find(call)
        calibration = self._counter.calibration(found.name)
        facts = {
            **self._selector.describe(found),
            "pinned": self._manager.overview.is_pinned(found.name),
            "template_overhead": calibration.overhead,
            "template_overhead_learned": calibration.is_learned,
            "average_turn_tokens": round(calibration.average_turn_tokens),
            "count_errors": calibration.errors(),
        }
        return json_answer(facts)

    async def handle_load(self, endpoint: Endpoint, call: Call) -> Answer:
        """Take a lease and give it back: then an engine runs."""
        async with self._relay.lease_any(call.sender(endpoint), call.values["model"]) as lease:
            engine = lease.engine
            facts = {
                "model": engine.key.model,
                "variant": engine.key.variant,
                "decision": lease.grant.how.value,
                "load_s": round(lease.load_s, 3),
                "waited_s": round(lease.queue_s, 3),
            }
        return json_answer(facts)

    async def handle_unload(self, endpoint: Endpoint, call: Call) -> Answer:
        found = self._find(call)
        stopped = await self._manager.unload(found.name, force=call.flag("force", default=False))
        return json_answer({"model": found.name, "engines_stopped": stopped})

    async def handle_pin(self, endpoint: Endpoint, call: Call) -> Answer:
        found, pinned = self._find(call), call.flag("pinned", default=True)
        self._manager.keep(
            found.name, idle_timeout_s=float("inf") if pinned else None, pinned=pinned
        )
        return json_answer(
            {"model": found.name, "pinned": self._manager.overview.is_pinned(found.name)}
        )
