"""RequestHandler: one method per endpoint family, each a row's `handler` in `endpoints.py`."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote

import msgspec
import trio
from quart import Response, request
from werkzeug.datastructures import Headers

from trio_gateway.engine.http.exchange import Header
from trio_gateway.engine.manager import EngineManager
from trio_gateway.models.counting.token_counter import TokenCounter
from trio_gateway.models.explanation import explain
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.server.access.caller import caller_of
from trio_gateway.server.access.permissions import Permissions, permissions_of
from trio_gateway.server.api.endpoints import Body, Endpoint, Family
from trio_gateway.server.api.errors import ApiError, shutting_down
from trio_gateway.server.api.request_body import endpoint_of, nested_too_deeply, parse_request
from trio_gateway.server.dumps import DumpWriter
from trio_gateway.server.handlers.model_lists import as_anthropic_list
from trio_gateway.server.handlers.upstream_paths import check_path, check_slot_action
from trio_gateway.server.http.refusal import refusal_in
from trio_gateway.server.http.scopes import RequestState, state_of
from trio_gateway.server.openapi import document as openapi
from trio_gateway.server.relay.relay import Relay, Sender
from trio_gateway.server.relay.waiting_stream import Answer

_PASSED_TO_ENGINE = ("Content-Type", "Accept")
_PASSED_TO_ANTHROPIC = (*_PASSED_TO_ENGINE, "Anthropic-Version", "Anthropic-Beta")
_PASSED_UPSTREAM = (
    *_PASSED_TO_ENGINE,
    "Accept-Encoding",
    "Accept-Language",
    "If-None-Match",
    "Range",
)


class RequestHandler:
    """Takes requests apart and puts answers together; what is between is the Relay's."""

    def __init__(
        self,
        manager: EngineManager,
        selector: ModelSelector,
        counter: TokenCounter,
        relay: Relay,
        dumps: DumpWriter | None,
    ) -> None:
        self._manager, self._selector, self._counter = manager, selector, counter
        self._relay, self._dumps = relay, dumps
        self._uploads: set[trio.CancelScope] = set()

    # -- requests for engines -----------------------------------------------------------------

    async def handle_relayed(self, endpoint: Endpoint) -> Response:
        """A request whose answer is an engine's."""
        if endpoint.body is Body.NONE:
            sender = self.sender(endpoint)
            target = endpoint.engine_path or endpoint.paths[0]
            ask = self._relay.prepare_any(sender, endpoint, request.args.get("model"), target)
        else:
            data = await self.read_body()
            self.begin_dump(endpoint, data)
            parsed = parse_request(data, endpoint)
            ask = await self._relay.prepare(self.sender(endpoint), endpoint, parsed)
        return respond(await self._relay.respond(ask))

    async def handle_upstream(self, endpoint: Endpoint, rest: str) -> Response:
        """Anything of one engine. `rest`: the model's name, which may have slashes, and a path."""
        raw = request.scope["raw_path"].decode("ascii", "replace")
        _, place, *parts = raw.split("/")
        if place != "upstream" or not parts:  # the router sees the path decoded
            message = "there is no such path; write /upstream/NAME/ with plain slashes"
            raise ApiError(404, message, code="unknown_path")
        model, path = self._split_upstream(parts)
        query = request.query_string.decode("ascii", "replace")
        target = f"{path}?{query}" if query else path
        if not path:  # links of a page there would else lead elsewhere
            headers = Headers([("Location", f"{raw}/{target}")])
            return Response(b"", status=308, headers=headers)
        sender, data = self.sender(endpoint), await self.read_body()
        known = self._relay.find(model, _permissions()).model
        is_carried = known.kv_carryover and self._manager.kv.folder is not None
        check_slot_action(known.name, request.method, path, query, data, is_carried=is_carried)
        # An engine's answer to HEAD would be read as one whose body is missing.
        method = "GET" if request.method == "HEAD" else request.method
        ask = self._relay.prepare_any(sender, endpoint, model, target, method=method, body=data)
        return respond(await self._relay.respond(ask))

    async def handle_realtime(self, endpoint: Endpoint) -> Response:
        """One that comes with a WebSocket is WebSocketRelay's."""
        message = f"{endpoint.name} is a WebSocket; connect to it with a client for these"
        upgrade = [("Upgrade", "websocket")]
        raise ApiError(426, message, code="websocket_needed", headers=upgrade)

    def _split_upstream(self, raw: list[str]) -> tuple[str, str]:
        """The model's name, decoded, and the path after it, as the client wrote it."""
        parts = [unquote(part) for part in raw]
        for count in range(len(parts), 0, -1):
            name = "/".join(parts[:count])
            if self._selector.is_name(name):
                path = "".join(f"/{part}" for part in raw[count:])
                check_path(path)
                return name, path
        self._relay.find(parts[0], _permissions())  # says what is there instead
        raise AssertionError("a known name was not found in the path")

    def sender(self, endpoint: Endpoint) -> Sender:
        passed: tuple[str, ...] = _PASSED_TO_ENGINE
        if endpoint.body is Body.ANY:
            passed = _PASSED_UPSTREAM
        elif endpoint.family is Family.ANTHROPIC:
            passed = _PASSED_TO_ANTHROPIC
        return Sender(
            state_of(request), caller_of(request), headers_for_engine(passed), _permissions()
        )

    async def read_body(self) -> bytes:
        """Raises ApiError when the gateway stops before all of it came."""
        with trio.CancelScope() as upload:
            self._uploads.add(upload)
            try:
                return cast(bytes, await request.get_data(cache=False))
            finally:
                self._uploads.discard(upload)
        raise shutting_down()

    def refuse_uploads(self) -> None:
        """The gateway stops: a request that is still being sent gets its 503 now."""
        for upload in [*self._uploads]:
            upload.cancel(reason="the gateway is stopping")

    def begin_dump(self, endpoint: Endpoint, data: bytes) -> None:
        if self._dumps is not None:
            state = state_of(request)
            state.record = self._dumps.begin(state.id, endpoint.name, data)
            state.stack.callback(state.record.finish)

    # -- models -------------------------------------------------------------------------------

    async def handle_models_list(self, endpoint: Endpoint) -> Response:
        models = [m for m in self._selector.list_models() if _permissions().allows(m["id"])]
        if "anthropic-version" in request.headers:
            return respond_json(as_anthropic_list(models))
        return respond_json({"object": "list", "data": models})

    async def handle_model_info(self, endpoint: Endpoint, model: str) -> Response:
        return respond_json(self._selector.describe(self._relay.find(model, _permissions()).model))

    async def handle_model_facts(self, endpoint: Endpoint, model: str) -> Response:
        """A model as in the list, and what its answers taught about its counts."""
        found = self._relay.find(model, _permissions()).model
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
        """Take a lease and give it back: an engine runs, then."""
        sender = self.sender(endpoint)
        async with self._relay.lease_any(sender, model) as lease:
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
        found = self._relay.find(model, _permissions()).model
        stopped = await self._manager.unload(found.name, force=_flag("force", default=False))
        return respond_json({"model": found.name, "engines_stopped": stopped})

    async def handle_pin(self, endpoint: Endpoint, model: str) -> Response:
        found, pinned = self._relay.find(model, _permissions()).model, _flag("pinned", default=True)
        self._manager.keep(
            found.name, idle_timeout_s=float("inf") if pinned else None, pinned=pinned
        )
        is_pinned = self._manager.overview.is_pinned(found.name)
        return respond_json({"model": found.name, "pinned": is_pinned})

    # -- the gateway --------------------------------------------------------------------------

    async def handle_health(self, endpoint: Endpoint) -> Response:
        return respond_json({"status": "ok"})

    async def handle_openapi(self, endpoint: Endpoint) -> Response:
        return Response(openapi.encoded(), content_type="application/json")

    async def handle_queue(self, endpoint: Endpoint) -> Response:
        return respond_json({"tickets": self._manager.overview.tickets()})

    async def handle_engines(self, endpoint: Endpoint) -> Response:
        kv = self._manager.kv.totals()
        return respond_json({"engines": self._manager.overview.engines(), "kv_carryover": kv})

    async def handle_explain(self, endpoint: Endpoint) -> Response:
        """What would become of the request in the body. No engine is started or asked to work."""
        data = await self.read_body()
        meant = endpoint_of(data, request.args.get("endpoint"))
        wanted, form = self._relay.counted(data, meant, _permissions())
        try:
            return respond_json(
                await explain(
                    self._selector,
                    self._counter,
                    self._manager.overview,
                    self._manager.kv,
                    wanted,
                    form,
                )
            )
        except RecursionError:
            raise nested_too_deeply() from None


# -- answers ------------------------------------------------------------------------------------


def respond(answer: Answer) -> Response:
    text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    response = Response(answer.body, status=answer.status, headers=Headers(text))
    response.timeout = None  # an answer may take hours
    return response


def respond_json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")


def respond_to_error(error: ApiError) -> Response:
    refusal = refusal_in(request.scope, error)
    state: RequestState = state_of(request)
    if state.record is not None:
        state.record.facts["status"] = str(refusal.status)
        state.record.add(refusal.body)
    headers = Headers([(name.decode(), value.decode("latin-1")) for name, value in refusal.headers])
    return Response(refusal.body, status=refusal.status, headers=headers)


def _permissions() -> Permissions:
    return permissions_of(request.scope)


def headers_for_engine(names: tuple[str, ...] = _PASSED_TO_ENGINE) -> list[Header]:
    """Only what an engine needs: cookies and keys are not for it."""
    return [
        (name.encode(), value.encode("latin-1"))
        for name in names
        if (value := request.headers.get(name)) is not None
    ]


def _flag(name: str, *, default: bool) -> bool:
    """A query parameter that is true or false."""
    value = request.args.get(name)
    if value is None:
        return default
    if value.lower() not in ("", "true", "1", "false", "0"):
        message = f"?{name}= is {value[:40]!r}; expected true or false"
        raise ApiError(400, message, code="invalid_parameter", param=name)
    return value.lower() in ("", "true", "1")
