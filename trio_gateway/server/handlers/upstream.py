"""UpstreamHandler: anything that one engine serves, under `/upstream/NAME/…`."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.names import ModelNames
from trio_gateway.server.access.permissions import Permissions
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.llamacpp import distrust_slots
from trio_gateway.server.handlers.upstream_paths import (
    changes_lora_scales,
    check_path,
    check_slot_action,
)
from trio_gateway.server.reading.readers import Readers, light_body
from trio_gateway.server.relay.answer import Answer
from trio_gateway.server.relay.model_finder import may_choose
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay

_NO_OBJECT = b"?"


def _any_model_there(permissions: Permissions, model: str) -> ApiError:
    message = (
        f'the API key "{permissions.key}" is limited to some models, and through /upstream all '
        f"models of {model}'s site can be used"
    )
    return ApiError(403, message, "permission_error", code="model_not_allowed", param="model")


class UpstreamHandler:
    def __init__(
        self,
        manager: EngineManager,
        names: ModelNames,
        preparer: Preparer,
        relay: Relay,
        readers: Readers,
    ) -> None:
        self._readers = readers
        self._preparer, self._relay = preparer, relay
        self._manager, self._names = manager, names

    async def handle_upstream(self, endpoint: Endpoint, call: Call) -> Answer:
        """`rest`: the model's name, which may have slashes, and a path."""
        raw = call.scope["raw_path"].decode("ascii", "replace")
        _, place, *parts = raw.split("/")
        if place != "upstream" or not parts:  # the router sees the path decoded
            message = "there is no such path; write /upstream/NAME/ with plain slashes"
            raise ApiError(404, message, code="unknown_path")
        model, path = self._split(call, parts)
        query = call.scope["query_string"].decode("ascii", "replace")
        target = f"{path}?{query}" if query else path
        if not path:  # otherwise links of a page there would lead elsewhere
            return Answer(308, [(b"location", f"{raw}/{target}".encode())], b"")
        sender, pieces = call.sender(endpoint), await call.read_as_sent()
        call.begin_capture(endpoint, pieces)
        data = light_body(pieces)
        known = self._preparer.find(model, sender.permissions, endpoint).model
        if may_choose(known, sender.permissions):
            raise _any_model_there(sender.permissions, known.name)
        is_carried = known.kv_carryover and self._manager.kv.folder is not None
        said = _NO_OBJECT if data is None else data  # such an action has no large body
        check_slot_action(known.name, call.method, path, query, said, is_carried=is_carried)
        # An engine's answer to HEAD would be read as one whose body is missing.
        method = "GET" if call.method == "HEAD" else call.method
        ask = self._preparer.prepare_any(
            sender, endpoint, model, target, method=method, body=data or b""
        )
        if data is None:
            async with self._readers.opened(pieces, None, sender.state.hold.client) as opened:
                ask = msgspec.structs.replace(ask, large=opened.as_it_is())
        answer = await self._relay.respond(ask)
        if changes_lora_scales(method, path) and answer.status == 200:
            distrust_slots(self._manager.overview, known)
        return answer

    def _split(self, call: Call, raw: list[str]) -> tuple[str, str]:
        """The model's name, decoded, and the path after it, as the client wrote it."""
        parts = [unquote(part) for part in raw]
        for count in range(len(parts), 0, -1):
            name = "/".join(parts[:count])
            if self._names.is_name(name):
                path = "".join(f"/{part}" for part in raw[count:])
                check_path(path)
                return name, path
        self._preparer.find(parts[0], call.permissions)  # says which names there are
        raise AssertionError("a known name was not found in the path")
