"""TokenCounter: the exact number of prompt tokens, from the cheapest source that knows it.

In this order: what was counted before; the running engine of the model; `tokenization.binary` of
the configuration; a `llama-tokenize` next to the engine's binary, or the vocabulary and the chat
template of the model's GGUF, in a helper process. Where none of them can say, the bound decides.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio

from trio_gateway.config.schema import ModelConfig, TokenizationConfig
from trio_gateway.config.server_options import MODEL
from trio_gateway.engine.clients.prompts import count_largest
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.models.counting.template_use import TemplateUse, refuses_tools, template_use
from trio_gateway.models.counting.tokenizer import Tokenizer
from trio_gateway.models.counting.vocabulary import Vocabulary
from trio_gateway.models.need.calibration import PROBES, Calibration, CountSource
from trio_gateway.models.need.contents import RequestFields
from trio_gateway.models.need.countable import Countable
from trio_gateway.models.need.measured_form import Form
from trio_gateway.rawjson import members
from trio_gateway.tasks import open_flat_nursery

log = logging.getLogger(__name__)

COUNT_TIMEOUT_S = 10.0
# For all that is asked for one request's sake.
BUDGET_S = 15.0
# 64 bytes each: the requests of a day, and none of their text.
CACHED_COUNTS = 4096
# Each is a process that loads a vocabulary.
TOKENIZERS_MAX = 2
_TOKENIZER = "llama-tokenize"


class Count(msgspec.Struct, frozen=True):
    """Prompt tokens as counted. Not `is_exact`: never too few, but perhaps too many; `correction`
    of them were added because answers showed that the source says too few. `why`: what kept it
    from being counted, where that was not for want of somebody who can."""

    tokens: int
    source: CountSource
    is_exact: bool = True
    correction: int = 0
    why: str = ""


class Counts(Protocol):
    """What is asked of an engine's client; see EngineClient."""

    async def count_tokens(self, endpoint: str, body: bytes, timeout_s: float) -> int | None: ...


class Counting(Protocol):
    """A running engine."""

    @property
    def client(self) -> Counts: ...


class Engines(Protocol):
    """Which engine of a model runs, if any; see Overview."""

    def engine_of(self, model: str, /) -> Counting | None: ...


class TokenCounter:
    """Counts for all models. `vocabulary` must be running for the last way to work. `secrets`:
    variables that commands do not inherit."""

    def __init__(
        self,
        engines: Engines,
        vocabulary: Vocabulary,
        reaper: Reaper | None,
        secrets: Collection[str] = (),
    ) -> None:
        self._engines, self._vocabulary, self._reaper = engines, vocabulary, reaper
        self._turns = trio.CapacityLimiter(TOKENIZERS_MAX)
        self._secrets = secrets
        self._known: OrderedDict[bytes, Count] = OrderedDict()
        self._calibrations: dict[str, Calibration] = {}

    def forget(self, models: Collection[str]) -> None:
        """These are others now: what was counted and learned of them holds no more."""
        self._known.clear()
        for model in models:
            self._calibrations.pop(model, None)

    def calibration(self, model: ModelConfig) -> Calibration:
        if (known := self._calibrations.get(model.name)) is None:
            known = Calibration(refuses_tools=refuses_tools(model))
            self._calibrations[model.name] = known
        return known

    async def count(self, model: ModelConfig, form: Form) -> Count | None:
        """The tokens of a request's prompt; of several prompts, of the largest.

        Images count as the model's `image_tokens` each. A request has a budget of time and of
        texts: what is beyond it is taken at its bound. None: unknown.
        """
        key = form.key(model.name)
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        found = await self._count(model, form)
        if found is not None and found.is_exact:
            self._known[key] = found
            if len(self._known) > CACHED_COUNTS:
                self._known.popitem(last=False)
        return found

    async def _count(self, model: ModelConfig, form: Form) -> Count | None:
        counted = form.countable(model.image_tokens)
        if counted is None:
            return self._bound(model, form, "the prompt is too long to be counted")
        with trio.move_on_after(BUDGET_S):
            found = await self._count_text(model, form.kind, counted.fields, counted.body)
            if found is not None:
                return _of_all(found, counted, model.image_tokens)
            return self._declined(model, form)
        return self._bound(model, form, f"counting it took more than {BUDGET_S:g} s")

    def _declined(self, model: ModelConfig, form: Form) -> Count | None:
        """The bound, if there is more to say than that nobody can count."""
        if (gguf := gguf_of(model)) is None:
            return None
        why = self._vocabulary.why_not(gguf)
        if form.kind == "chat/completions" and template_use(model) is None:
            why = "its options choose a chat template that only its engine knows"
        return None if why is None else self._bound(model, form, f"by file alone: {why}")

    def _bound(self, model: ModelConfig, form: Form, why: str) -> Count:
        calibration, source = self.calibration(model), CountSource.BOUND
        correction = calibration.correction(source)
        upper = form.upper_bound(calibration.overhead, model.image_tokens) + correction
        return Count(upper, source, False, correction, why)

    async def _count_text(
        self, model: ModelConfig, endpoint: str, fields: RequestFields, body: bytes
    ) -> Count | None:
        if endpoint == "chat/completions" and self.calibration(model).ignores_tools:
            body = _without(body, "tools")
        engine = self._engines.engine_of(model.name)
        if engine is not None:
            tokens = await engine.client.count_tokens(endpoint, body, COUNT_TIMEOUT_S)
            if tokens is not None:
                if not self.calibration(model).engine_has_taught:
                    await self._learn(model, partial(_ask_engine, engine.client), by_engine=True)
                return Count(tokens, CountSource.ENGINE)
        if model.tokenization is not None:
            found = await self._count_with_command(model, endpoint, fields, body)
            if found is not None:
                return found
        return await self._count_offline(model, endpoint, fields, body)

    async def _learn(
        self,
        model: ModelConfig,
        ask: Callable[[bytes], Awaitable[int | None]],
        *,
        by_engine: bool,
    ) -> None:
        """Have the probes counted. Five small questions: 5 ms. The helper gets them all at once, so
        that they wait together for what is before them."""
        calibration = self.calibration(model)
        counts: list[int | None] = [None] * len(PROBES)

        async def count(place: int) -> None:
            counts[place] = await ask(msgspec.json.encode(PROBES[place]))

        if by_engine:
            for place in range(len(PROBES)):
                await count(place)
        else:
            async with open_flat_nursery() as nursery:
                for place in range(len(PROBES)):
                    nursery.start_soon(count, place)
        calibration.learn(counts, by_engine=by_engine)
        log.debug("%s: its template adds %s", model.name, calibration.overhead)

    async def _count_with_command(
        self, model: ModelConfig, endpoint: str, fields: RequestFields, body: bytes
    ) -> Count | None:
        config = model.tokenization
        assert config is not None
        tokenizer = Tokenizer(config, self._reaper, self._turns, self._secrets)
        source = CountSource.COMMAND
        is_chat = endpoint == "chat/completions"
        if is_chat and not config.has_extras:
            rendered = await self._render(model, body)
            if rendered is not None:
                tokens = await tokenizer.count(rendered)
                return None if tokens is None else Count(tokens, source)
        calibration = self.calibration(model)
        tokens = await tokenizer.count_request(fields, calibration.overhead)
        if tokens is None:
            return None
        correction = calibration.correction(source) if is_chat else 0
        return Count(tokens + correction, source, not is_chat, correction)

    # -- without an engine ---------------------------------------------------------------------

    async def _count_offline(
        self, model: ModelConfig, endpoint: str, fields: RequestFields, body: bytes
    ) -> Count | None:
        """By the vocabulary, which takes 0.3 ms; where it cannot be exact, by a llama-tokenize,
        which takes 100 ms. Both were exact on every text that they took (benchmarks/counters.py).
        """
        gguf = gguf_of(model)
        if gguf is None:
            return None
        prompts = None
        if endpoint == "chat/completions":
            if (use := template_use(model)) is None:
                return None
            counted = await self._vocabulary.count_chat(gguf, body, use)
            if counted is not None and not self.calibration(model).is_learned:
                await self._learn(model, partial(self._exact_count, gguf, use), by_engine=False)
        else:
            prompts = _texts(fields.input if endpoint == "embeddings" else fields.prompt)
            if prompts is None:
                return None
            counted = await self._vocabulary.count_prompts(gguf, prompts)
        source = CountSource.VOCABULARY
        # Answers may have shown that this build makes something else of a chat.
        correction = self.calibration(model).correction(source)
        if counted is not None and counted.exact and not correction:
            return Count(counted.tokens, source)
        if (tokenizer := _tokenizer_next_to(model.variants[0].binary)) is not None:
            if prompts is None and (rendered := await self._render(model, body)) is not None:
                prompts = [rendered]
            if prompts is not None:
                return await self._count_with_tokenizer(tokenizer, gguf, prompts)
        if counted is None:
            return None
        return Count(counted.tokens + correction, source, False, correction)

    async def _render(self, model: ModelConfig, body: bytes) -> str | None:
        """A chat as its prompt; None where the engine might make something else of it."""
        gguf = gguf_of(model)
        if gguf is None or (use := template_use(model)) is None:
            return None
        return await self._vocabulary.render(gguf, body, use)

    async def _exact_count(self, gguf: Path, use: TemplateUse, chat: bytes) -> int | None:
        counted = await self._vocabulary.count_chat(gguf, chat, use)
        return counted.tokens if counted is not None and counted.exact else None

    async def _count_with_tokenizer(
        self, binary: str, gguf: Path, prompts: list[str]
    ) -> Count | None:
        config = TokenizationConfig(binary=binary, extra_args=("-m", str(gguf)))
        tokenizer = Tokenizer(config, self._reaper, self._turns, self._secrets)
        tokens = await count_largest(prompts, tokenizer.count)
        return None if tokens is None else Count(tokens, CountSource.TOKENIZER)


def gguf_of(model: ModelConfig) -> Path | None:
    """The model's file, where the arguments of its smallest variant name one that is here."""
    variant = model.variants[0]
    path = variant.engine_args.value(MODEL)
    if path is None or not (full := variant.workdir / path).is_file():
        return None
    return full


@cache
def _tokenizer_next_to(binary: str) -> str | None:
    """A llama-tokenize in the folder of the engine's binary: the same build counts alike."""
    found = Path(binary).with_name(_TOKENIZER + Path(binary).suffix)
    return str(found) if found.is_file() else None


def _of_all(found: Count, counted: Countable, image_tokens: int) -> Count:
    """With what was left out of the count, at its bound."""
    if counted.media:
        tokens = found.tokens + counted.media * image_tokens
        found = msgspec.structs.replace(found, tokens=tokens, is_exact=False)
    if counted.rest > found.tokens:
        why = f"the batch has {counted.left_out} prompts more than are counted"
        return msgspec.structs.replace(
            found, tokens=counted.rest, source=CountSource.BOUND, is_exact=False, why=why
        )
    return found


def _texts(prompts: Any) -> list[str] | None:
    """The prompts if all of them are text: ids among them make it something for an engine."""
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, list) and all(isinstance(p, str) for p in prompts):
        return list(prompts)
    return None


async def _ask_engine(client: Counts, chat: bytes) -> int | None:
    return await client.count_tokens("chat/completions", chat, COUNT_TIMEOUT_S)


def _without(body: bytes, field: str) -> bytes:
    request = members(body)
    request.pop(field, None)
    return msgspec.json.encode(request)
