"""ModelHandler: the models, as lists and one by one; loading, unloading and pinning them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.catalog import ModelCatalog
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.known_model import KnownModel
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.model_lists import (
    Page,
    as_anthropic,
    as_anthropic_list,
    as_openai,
    as_openai_list,
    as_own_list,
)
from trio_gateway.server.handlers.responses import json_answer
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay


class ModelHandler:
    """Each method is a row's `handler` in `endpoints.py`."""

    def __init__(
        self,
        config: GatewayConfig,
        manager: EngineManager,
        catalog: ModelCatalog,
        counter: TokenCounter,
        preparer: Preparer,
        relay: Relay,
    ) -> None:
        self._config, self._manager, self._catalog = config, manager, catalog
        self._counter, self._preparer, self._relay = counter, preparer, relay
        self._created = int(time.time())

    def _find(self, call: Call) -> ModelConfig:
        """The model in the path."""
        return self._preparer.find(call.values["model"], call.permissions).model

    def _find_here(self, call: Call) -> ModelConfig:
        """The same, to load or unload it. Raises ApiError: 400, another gateway does that."""
        found = self._find(call)
        if found.peer is not None:
            urls = " and ".join(found.variants[0].options.urls)
            message = (
                f"{found.name} is a model of {found.peer}: load, unload or pin it there ({urls})"
            )
            raise ApiError(400, message, code="model_is_elsewhere", param="model")
        return found

    async def _known(self, call: Call) -> KnownModel:
        name, permissions = call.values["model"], call.permissions
        if (choice := self._preparer.choice_of(name, permissions)) is not None:
            return await self._catalog.of_choice(choice, self._config, permissions.allows)
        (known,) = await self._catalog.of([self._find(call)])
        return known

    async def handle_models_list(self, endpoint: Endpoint, call: Call) -> Answer:
        """All models and choices that are not hidden, and that the key may use; with `?own=true`
        none that other gateways have."""
        models = await self._catalog.listed(self._config, call.permissions.allows)
        if call.flag("own", default=False):
            return json_answer(as_own_list(models, self._created))
        if _is_anthropic(call):
            return json_answer(_anthropic_page(call, models, self._created))
        return json_answer(as_openai_list(models, self._created))

    async def handle_model_info(self, endpoint: Endpoint, call: Call) -> Answer:
        as_entry = as_anthropic if _is_anthropic(call) else as_openai
        return json_answer(as_entry(await self._known(call), self._created))

    async def handle_model_facts(self, endpoint: Endpoint, call: Call) -> Answer:
        """A model as in the list, and what its answers taught about its counts; of a choice, those
        of the model that a request would get now."""
        known, model = await self._known(call), self._find(call)
        calibration = self._counter.calibration(model)
        facts = {
            **as_openai(known, self._created),
            "pinned": self._manager.overview.is_pinned(model.name),
            "template_overhead": calibration.overhead,
            "template_overhead_learned": calibration.is_learned,
            "average_turn_tokens": round(calibration.average_turn_tokens),
            "count_errors": calibration.errors(),
        }
        return json_answer(facts)

    async def handle_load(self, endpoint: Endpoint, call: Call) -> Answer:
        """Take a lease and give it back: then an engine runs."""
        self._find_here(call)
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
        found = self._find_here(call)
        stopped = await self._manager.unload(found.name, force=call.flag("force", default=False))
        return json_answer({"model": found.name, "engines_stopped": stopped})

    async def handle_pin(self, endpoint: Endpoint, call: Call) -> Answer:
        found, pinned = self._find_here(call), call.flag("pinned", default=True)
        self._manager.keep(
            found.name, idle_timeout_s=float("inf") if pinned else None, pinned=pinned
        )
        return json_answer(
            {"model": found.name, "pinned": self._manager.overview.is_pinned(found.name)}
        )


def _anthropic_page(call: Call, models: Sequence[KnownModel], created: int) -> dict[str, Any]:
    """Raises ApiError: 400, there is no such page."""
    limit = call.query("limit")
    if limit is not None and not (limit.isascii() and limit.isdecimal() and int(limit[:9]) >= 1):
        message = f"?limit={limit[:40]}: expected a whole number from 1 on"
        raise ApiError(400, message, code="invalid_parameter", param="limit")
    number = None if limit is None else int(limit[:9])
    page = Page(number, call.query("after_id"), call.query("before_id"))
    try:
        return as_anthropic_list(models, created, page)
    except ValueError:
        message = "after_id or before_id is the id of no model in the list"
        raise ApiError(400, message, code="invalid_parameter", param="after_id") from None


def _is_anthropic(call: Call) -> bool:
    """Whether the answer is to be in Anthropic's shape."""
    return bool(call.header_values(b"anthropic-version"))
