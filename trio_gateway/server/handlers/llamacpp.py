"""LlamaCppHandler: what llama.cpp's own clients ask one engine, at the paths that it has itself.

Which engine: that of the model in `?model=`. Without it the only model's, or that of the only model
of which an engine runs.
"""

from __future__ import annotations

from trio_gateway import rawjson
from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.config.server_options import LORA, LORA_SCALED
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.overview import Overview
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError, model_not_found
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.upstream_paths import check_slot_action
from trio_gateway.server.reading.readers import LIGHT_BYTES, light_body
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay

_SLOT_ACTIONS = ("save", "restore", "erase")
_MOST_DIGITS = 5  # of a slot's number


class LlamaCppHandler:
    """Each method is a row's `handler` in `endpoints.py`."""

    def __init__(
        self, config: GatewayConfig, manager: EngineManager, preparer: Preparer, relay: Relay
    ) -> None:
        self._config, self._manager = config, manager
        self._preparer, self._relay = preparer, relay

    async def handle_asked(self, endpoint: Endpoint, call: Call) -> Answer:
        """A question without a body, passed on."""
        return await self._relayed(endpoint, call, self._model(endpoint, call), endpoint.paths[0])

    async def handle_lora_adapters(self, endpoint: Endpoint, call: Call) -> Answer:
        model = self._model(endpoint, call)
        if call.method != "POST":
            return await self._relayed(endpoint, call, model, endpoint.paths[0])
        if not call.permissions.admin:
            message = "only a key with admin = true may change LoRA scales: they are for everybody"
            raise ApiError(403, message, "permission_error", code="admin_only")
        body = await _small_body(call)
        match rawjson.decode_or_none(body):
            case [*entries] if all(isinstance(entry, dict) for entry in entries):
                known = self._preparer.find(model, call.permissions, endpoint).model
                target = endpoint.paths[0]
                answer = await self._relayed(endpoint, call, model, target, "POST", body)
                if answer.status == 200:
                    distrust_slots(self._manager.overview, known)
                return answer
        message = 'the body is not an array of objects such as {"id": 0, "scale": 0.5}'
        raise ApiError(400, message, code="invalid_json")

    async def handle_slot_action(self, endpoint: Endpoint, call: Call) -> Answer:
        slot, action = call.values["slot"], call.query("action")
        if not (slot.isdecimal() and slot.isascii() and len(slot) <= _MOST_DIGITS):
            message = f"/slots/{slot[:40]}: expected the number of a slot"
            raise ApiError(400, message, code="invalid_parameter", param="slot")
        if action not in _SLOT_ACTIONS:
            message = f"?action= is missing or wrong; expected one of {', '.join(_SLOT_ACTIONS)}"
            raise ApiError(400, message, code="invalid_parameter", param="action")
        body = await _small_body(call)
        model = self._model(endpoint, call, _model_in(body))
        known = self._preparer.find(model, call.permissions, endpoint).model
        is_carried = known.kv_carryover and self._manager.kv.folder is not None
        path = f"/slots/{slot}"
        check_slot_action(known.name, call.method, path, "", body, is_carried=is_carried)
        target = f"{path}?action={action}"
        return await self._relayed(endpoint, call, model, target, "POST", body or b"{}")

    async def _relayed(
        self,
        endpoint: Endpoint,
        call: Call,
        model: str | None,
        target: str,
        method: str = "GET",
        body: bytes = b"",
    ) -> Answer:
        sender = call.sender(endpoint)
        ask = self._preparer.prepare_any(sender, endpoint, model, target, method=method, body=body)
        return await self._relay.respond(ask)

    def _model(self, endpoint: Endpoint, call: Call, in_body: str | None = None) -> str | None:
        """The name of the model that is asked for; None: there is only one.

        Raises:
            ApiError: 404, it is not said which of several.
        """
        named = call.query("model")
        if named is None:
            named = in_body
        if named is not None or len(self._config.models) == 1:
            return named
        loaded = {engine.model for engine in self._manager.overview.loaded()}
        running = [
            model.name
            for model in self._config.models
            if model.name in loaded
            and call.permissions.allows(model.name)
            and self._preparer.is_served(endpoint, model)
        ]
        if len(running) == 1:
            return running[0]
        which = "several of them run" if running else "none of them runs"
        raise model_not_found(f"there are several models, and {which}; name one with ?model=")


def distrust_slots(overview: Overview, model: ModelConfig) -> None:
    """The scales of its LoRA adapters were changed. Its next engine begins with others, and what
    this one has read by then is of no use to that."""
    if any(variant.engine_args.has(LORA, LORA_SCALED) for variant in model.variants):
        for engine in overview.engines_of(model.name):
            if engine.kv is not None:
                engine.kv.distrust("the scales of its LoRA adapters were changed")


def _model_in(body: bytes) -> str | None:
    """As llama-server's router finds it."""
    name = (rawjson.members_or_none(body) or {}).get("model")
    return None if name is None else rawjson.decode_or_none(name, str)


async def _small_body(call: Call) -> bytes:
    """Raises ApiError: 413, no such request is that large."""
    if (data := light_body(await call.read_pieces())) is None:
        message = f"the body is larger than {LIGHT_BYTES} bytes"
        raise ApiError(413, message, code="body_too_large")
    return data
