"""ModelHandler: the models, as lists and one by one; loading, unloading and pinning them."""

from __future__ import annotations

from quart import Response, request

from trio_gateway.config.schema import ModelConfig
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.server.api.endpoints import Endpoint
from trio_gateway.server.handlers.incoming import Incoming, flag
from trio_gateway.server.handlers.model_lists import as_anthropic_list
from trio_gateway.server.handlers.responses import respond_json
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay


class ModelHandler:
    def __init__(
        self,
        incoming: Incoming,
        manager: EngineManager,
        selector: ModelSelector,
        counter: TokenCounter,
        preparer: Preparer,
        relay: Relay,
    ) -> None:
        self._incoming, self._manager, self._selector = incoming, manager, selector
        self._counter, self._preparer, self._relay = counter, preparer, relay

    def _find(self, name: str) -> ModelConfig:
        return self._preparer.find(name, self._incoming.permissions).model

    async def handle_models_list(self, endpoint: Endpoint) -> Response:
        allows = self._incoming.permissions.allows
        models = [m for m in self._selector.list_models() if allows(m["id"])]
        if "anthropic-version" in request.headers:
            return respond_json(as_anthropic_list(models))
        return respond_json({"object": "list", "data": models})

    async def handle_model_info(self, endpoint: Endpoint, model: str) -> Response:
        return respond_json(self._selector.describe(self._find(model)))

    async def handle_model_facts(self, endpoint: Endpoint, model: str) -> Response:
        """A model as in the list, and what its answers taught about its counts."""
        found = self._find(model)
        calibration = self._counter.calibration(found.name)
        facts = {
            **self._selector.describe(found),
            "pinned": self._manager.overview.is_pinned(found.name),
            "template_overhead": calibration.overhead,
            "template_overhead_learned": calibration.is_learned,
            "average_turn_tokens": round(calibration.average_turn_tokens),
            "count_errors": calibration.errors(),
        }
        return respond_json(facts)

    async def handle_load(self, endpoint: Endpoint, model: str) -> Response:
        """Take a lease and give it back: then an engine runs."""
        async with self._relay.lease_any(self._incoming.sender(endpoint), model) as lease:
            engine = lease.engine
            facts = {
                "model": engine.key.model,
                "variant": engine.key.variant,
                "decision": lease.grant.how.value,
                "load_s": round(lease.load_s, 3),
                "waited_s": round(lease.queue_s, 3),
            }
        return respond_json(facts)

    async def handle_unload(self, endpoint: Endpoint, model: str) -> Response:
        found = self._find(model)
        stopped = await self._manager.unload(found.name, force=flag("force", default=False))
        return respond_json({"model": found.name, "engines_stopped": stopped})

    async def handle_pin(self, endpoint: Endpoint, model: str) -> Response:
        found, pinned = self._find(model), flag("pinned", default=True)
        self._manager.keep(
            found.name, idle_timeout_s=float("inf") if pinned else None, pinned=pinned
        )
        return respond_json(
            {"model": found.name, "pinned": self._manager.overview.is_pinned(found.name)}
        )
