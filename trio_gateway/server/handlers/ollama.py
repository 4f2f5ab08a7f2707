"""OllamaHandler: Ollama's endpoints. Engines get the matching OpenAI calls."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

import msgspec

import trio_gateway
from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.engine.manager import EngineManager
from trio_gateway.engine.overview import LoadedEngine
from trio_gateway.models.catalog import ModelCatalog
from trio_gateway.models.names import Wanted
from trio_gateway.server.api import sse
from trio_gateway.server.api.endpoint import Endpoint, Family
from trio_gateway.server.api.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, INFILL, OLLAMA_CANNOT
from trio_gateway.server.api.errors import ApiError, ErrorEvents, engine_error
from trio_gateway.server.api.request_body import made_request
from trio_gateway.server.budget import Hold
from trio_gateway.server.handlers.call import Call
from trio_gateway.server.handlers.responses import answer_of, json_answer
from trio_gateway.server.http.scopes import RequestState, TornStream
from trio_gateway.server.ollama.answer import (
    CONTENT_TYPE,
    STREAM_CONTENT_TYPE,
    NdjsonTranslator,
    load_answer,
    rfc3339,
    translate_answer,
    translate_error,
)
from trio_gateway.server.ollama.models import (
    NEVER,
    LoadedModel,
    ps_answer,
    show_answer,
    tags_answer,
    version_answer,
)
from trio_gateway.server.ollama.request import Kind, OllamaCall, open_call, read_model_name
from trio_gateway.server.ollama.stream import NdjsonStream, Stopwatch
from trio_gateway.server.reading.messages import Translation
from trio_gateway.server.reading.readers import LIGHT_BYTES, Readers, light_body
from trio_gateway.server.relay.answer import Answer, AnswerStream, collected
from trio_gateway.server.relay.ask import Ask, Sender
from trio_gateway.server.relay.early_answer import Opening
from trio_gateway.server.relay.headers import DECISION_PREFIX
from trio_gateway.server.relay.prepare import Preparer
from trio_gateway.server.relay.relay import Relay

log = logging.getLogger(__name__)

_AT_THE_ENGINE = {row.name: row for row in (CHAT, COMPLETIONS, EMBEDDINGS, INFILL)}


class OllamaHandler:
    """Each method is a row's `handler` in `endpoints.py`."""

    def __init__(
        self,
        config: GatewayConfig,
        manager: EngineManager,
        catalog: ModelCatalog,
        preparer: Preparer,
        relay: Relay,
        readers: Readers,
    ) -> None:
        self._readers = readers
        self._config, self._manager = config, manager
        self._preparer, self._relay = preparer, relay
        self._catalog, self._began_s = catalog, time.time()

    # -- requests for engines -----------------------------------------------------------------

    async def handle_ollama_call(self, endpoint: Endpoint, call: Call) -> Answer:
        """Chat, generate, embed and embeddings."""
        pieces = await call.read_pieces()
        call.begin_dump(endpoint, pieces)
        sender = call.sender_of_translated()
        if (data := light_body(pieces)) is None:
            asked, name, ask = await self._prepare_large(endpoint, sender, pieces)
        else:
            opened = open_call(Kind(endpoint.name.removeprefix("api/")), data)
            name = opened.model
            sender.state.record.asks(name)
            # Before anything else is read.
            wanted = self._preparer.find(name, sender.permissions, _row_of(endpoint))
            asked, ask = opened.read(), None
        if asked.only_loads:
            return await self._load(sender, asked, name)
        if ask is None:
            at_engine = _AT_THE_ENGINE[asked.endpoint]
            made = made_request(asked.request(name, self._context_of(wanted.model)), at_engine)
            ask = await self._preparer.prepare(sender, at_engine, made, wish=asked.num_ctx or 0)
        stopwatch = Stopwatch(ask.wait, sender.state.began_at)
        translator = None
        if asked.stream:
            translator = _translator(asked)
            opening = Opening(STREAM_CONTENT_TYPE, translator.feed_waiting)
            ask = msgspec.structs.replace(ask, opening=opening)
        answer = await self._relay.respond(ask)
        if answer.status == 200:
            self._keep_alive(sender, asked, ask.model.name)
        return await _translated(asked, answer, translator, stopwatch, sender.state, self._readers)

    async def _prepare_large(
        self, endpoint: Endpoint, sender: Sender, pieces: Sequence[bytes]
    ) -> tuple[OllamaCall, str, Ask | None]:
        """What is asked for, of which model; the Ask, if there is more to do than to load it."""
        client = sender.state.hold.client
        async with self._readers.opened(pieces, endpoint.name, client) as opened:
            name = opened.model or ""
            sender.state.record.asks(name)
            wanted = self._preparer.find(name, sender.permissions, _row_of(endpoint))
            read, asked = await opened.read(wanted.model, name, self._context_of(wanted.model))
        assert asked is not None
        if asked.only_loads:
            return asked, name, None
        at_engine, wish = _AT_THE_ENGINE[asked.endpoint], asked.num_ctx or 0
        if wanted.chosen is None:
            self._preparer.check_served(at_engine, wanted.model)
            ask = await self._preparer.prepare_large(
                sender, at_engine, wanted, name, read, wish=wish
            )
            return asked, name, ask

        async def prepare(way: Wanted) -> Ask:
            """It is read once more for each model, as they have rules of their own."""
            async with self._readers.opened(pieces, endpoint.name, client) as opened:
                read, _ = await opened.read(way.model, name, self._context_of(way.model))
            return await self._preparer.prepare_large(sender, at_engine, way, name, read, wish=wish)

        ask = await self._preparer.prepare_chosen(sender, at_engine, name, {}, prepare, wish=wish)
        return asked, name, ask

    def _context_of(self, model: ModelConfig) -> int:
        """Tokens of its largest."""
        return max(self._manager.overview.contexts_of(model.name))

    async def _load(self, sender: Sender, asked: OllamaCall, name: str) -> Answer:
        """There is nothing to answer. An unload is not waited for, as with Ollama."""
        model = self._preparer.find(name, sender.permissions).model.name
        if asked.unloads and not sender.permissions.admin:
            message = "only a key with admin = true may unload a model: others may be using it"
            raise ApiError(403, message, "permission_error", code="admin_only")
        if not asked.unloads:
            async with self._relay.lease_any(sender, name, wish=asked.num_ctx or 0):
                pass
        self._keep_alive(sender, asked, model)
        body = load_answer(asked.kind, asked.model, rfc3339(time.time()), unloaded=asked.unloads)
        return answer_of(body, CONTENT_TYPE)

    def _keep_alive(self, sender: Sender, asked: OllamaCall, model: str) -> None:
        """A request that does not mention it changes nothing; nor does one whose key is not an
        admin's, as others use the model as well."""
        wanted_s = asked.keep_alive_s
        if wanted_s is None:
            return
        if not sender.permissions.admin:
            log.info("keep_alive of %s is ignored: its key is not an admin's", sender.caller.client)
            return
        if wanted_s > 0:
            self._manager.keep(model, idle_timeout_s=wanted_s, pinned=math.isinf(wanted_s))
            return
        self._manager.keep(model, idle_timeout_s=None, pinned=False)
        # Once this request is over, however it ends; its lease is given back by then.
        sender.state.stack.callback(self._manager.begin_unload, model)

    # -- models -------------------------------------------------------------------------------

    async def handle_ollama_tags(self, endpoint: Endpoint, call: Call) -> Answer:
        models = await self._catalog.listed(self._config, call.permissions.allows)
        return json_answer(tags_answer(models, self._began_s))

    async def handle_ollama_show(self, endpoint: Endpoint, call: Call) -> Answer:
        if (data := light_body(await call.read_pieces())) is None:
            message = f"the body is larger than {LIGHT_BYTES} bytes"
            raise ApiError(413, message, code="body_too_large")
        name, permissions = read_model_name(data), call.permissions
        if (choice := self._preparer.choice_of(name, permissions)) is not None:
            known = await self._catalog.of_choice(choice, self._config, permissions.allows)
            return json_answer(show_answer(known, known.context, self._began_s))
        wanted = self._preparer.find(name, permissions)
        model, at_least = wanted.model, wanted.at_least
        contexts = self._manager.overview.contexts_of(model.name)
        context = min(c for c in contexts if c >= at_least) if at_least else max(contexts)
        (known,) = await self._catalog.of([model])
        return json_answer(show_answer(known, context, self._began_s))

    async def handle_ollama_ps(self, endpoint: Endpoint, call: Call) -> Answer:
        """The engines that are ready."""
        allows = call.permissions.allows
        ready = [e for e in self._manager.overview.loaded() if allows(e.model)]
        models = [self._preparer.find(engine.model).model for engine in ready]
        loaded = [_loaded(engine) for engine in ready]
        known = await self._catalog.of(models)
        return json_answer(ps_answer(list(zip(known, loaded, strict=True))))

    # -- the rest -----------------------------------------------------------------------------

    async def handle_ollama_version(self, endpoint: Endpoint, call: Call) -> Answer:
        return json_answer(version_answer(trio_gateway.__version__))

    async def handle_ollama_cannot(self, endpoint: Endpoint, call: Call) -> Answer:
        what = OLLAMA_CANNOT[endpoint.name]
        message = (
            f"trio-gateway does not {what}: its models are listed in its configuration, with files "
            "that exist; change the configuration and reload it"
        )
        raise ApiError(501, message, "not_supported_error", code="not_supported")


def _loaded(engine: LoadedEngine) -> LoadedModel:
    left_s = engine.leaves_in_s
    expires_at = NEVER if math.isinf(left_s) else rfc3339(time.time() + left_s)
    return LoadedModel(
        context=engine.context, memory_bytes=engine.memory_bytes, expires_at=expires_at
    )


# -- answers ------------------------------------------------------------------------------------


async def _translated(
    asked: OllamaCall,
    answer: Answer,
    translator: NdjsonTranslator | None,
    stopwatch: Stopwatch,
    state: RequestState,
    readers: Readers,
) -> Answer:
    """An engine's answer, translated; its own error in the shape of its client's API.
    `translator`: of a stream, if one was asked for."""
    headers = [header for header in answer.headers if header[0].startswith(DECISION_PREFIX)]
    if not isinstance(answer.body, bytes) and answer.status == 200 and answer.body.has_events:
        headers.append((b"content-type", STREAM_CONTENT_TYPE))
        stream = NdjsonStream(answer.body, translator or _translator(asked), stopwatch)
        return Answer(200, headers, stream)
    whole = await _collected(answer.body, state.hold)
    content_type = CONTENT_TYPE
    # Of a longer error only the beginning is shown, as text: to decode it would take long.
    said = whole[:LIGHT_BYTES]
    if answer.status != 200 and state.family is Family.ANTHROPIC:
        body = engine_error(answer.status, said, state.family)
    elif answer.status != 200:
        body = translate_error(said)
    elif translator is not None:  # of an engine that does not stream
        last = sse.answer_as_event(whole)
        if last is None:
            last = sse.error_event(ErrorEvents(Family.OPENAI).of_engine(200, whole), last_sent=b"")
        body = translator.feed(last)
        body += translator.finish(stopwatch.durations())
        content_type = STREAM_CONTENT_TYPE
    else:
        how = Translation(
            asked.kind, asked.model, rfc3339(time.time()), stopwatch.durations(), asked.dimensions
        )
        if len(whole) > LIGHT_BYTES:
            body = await readers.translate(whole, how, state.hold.client)
        else:
            body = translate_answer(
                how.kind, how.model, how.created_at, whole, how.durations, how.dimensions
            )
    return Answer(answer.status, [*headers, (b"content-type", content_type)], body)


def _row_of(endpoint: Endpoint) -> Endpoint:
    """What engines are asked for it, as far as its path tells."""
    return EMBEDDINGS if endpoint.name.startswith("api/embed") else CHAT


def _translator(asked: OllamaCall) -> NdjsonTranslator:
    return NdjsonTranslator(asked.kind, asked.model, rfc3339(time.time()))


async def _collected(body: bytes | AnswerStream, hold: Hold) -> bytes:
    """Raises ApiError: 502, it broke off; NoRoom."""
    if isinstance(body, bytes):
        return body
    try:
        return await collected(body, hold)
    except TornStream as torn:
        raise ApiError(502, str(torn), "engine_error", code="engine_failed") from None
    finally:
        await body.aclose()
