"""ModelSelector: from a request to its need, and to the smallest variant that holds it."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.engine.engine_manager import EngineManager
from trio_gateway.models.token_count import (
    RequestFields,
    answer_tokens,
    need_of,
    prompt_bounds,
)
from trio_gateway.models.tokenize_command import count_with_command

log = logging.getLogger(__name__)

COUNT_TIMEOUT_S = 10.0
LONGEST_NAME = 200


class ModelNotFound(Exception):
    """No model of that name; the message has near names."""


class ContextLengthExceeded(Exception):
    """The request needs more tokens than the model's largest variant holds."""


class Selection(msgspec.Struct, frozen=True):
    """`need` is in tokens; `context` is that of the smallest variant that holds it."""

    model: ModelConfig
    need: int
    context: int


class ModelSelector:
    """Chooses variants; asks the manager's running engines for exact counts where it matters."""

    def __init__(self, config: GatewayConfig, manager: EngineManager) -> None:
        self._config, self._manager = config, manager
        self._created = int(time.time())

    def find_model(self, name: str) -> ModelConfig:
        """The model with this name or alias.

        Raises:
            ModelNotFound
        """
        if (model := self._config.find_model(name)) is not None:
            return model
        if len(name) > LONGEST_NAME:  # looking for near ones takes seconds, and there are none
            raise ModelNotFound(f'there is no model "{name[:LONGEST_NAME]}…"')
        names = [m.name for m in self._config.models if not m.hidden]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
        hint = f"; did you mean: {', '.join(near)}?" if near else ""
        raise ModelNotFound(f'there is no model "{name}"{hint}')

    async def select_variant(
        self, model: ModelConfig, endpoint: str, fields: RequestFields, body: bytes
    ) -> Selection:
        """The need of a request, and the smallest variant that holds it.

        Raises:
            ContextLengthExceeded: no variant is large enough.
        """
        contexts = self._manager.contexts_of(model.name)
        largest = max(contexts)
        answer = answer_tokens(endpoint, fields)

        def need(prompt: int) -> int:
            default = self._config.server.default_answer_tokens
            return need_of(prompt, answer, default, largest)

        bounds = prompt_bounds(endpoint, fields)
        upper = need(bounds.upper)
        choice = smallest_holding(contexts, upper)
        if choice is not None and choice == smallest_holding(contexts, need(bounds.lower)):
            return Selection(model, upper, choice)  # a count could change nothing
        running = self._manager.engine_of(model.name)
        if running is not None and running.info is not None and running.info.context >= upper:
            return Selection(model, upper, running.info.context)  # it serves in any case
        prompt = await self._count(model, endpoint, fields, body)
        if prompt is None:
            if (least := need(bounds.lower)) > largest:
                message = _too_long(model.name, least, bounds.lower, answer, largest, "at least ")
                raise ContextLengthExceeded(message)
            # Only a bound: the largest variant gets what may not fit, and its engine has the
            # last word, with the exact numbers.
            return Selection(model, min(upper, largest), choice or largest)
        exact = smallest_holding(contexts, need(prompt))
        if exact is None:
            message = _too_long(model.name, need(prompt), prompt, answer, largest)
            raise ContextLengthExceeded(message)
        return Selection(model, need(prompt), exact)

    async def _count(
        self, model: ModelConfig, endpoint: str, fields: RequestFields, body: bytes
    ) -> int | None:
        running = self._manager.engine_of(model.name)
        if running is not None:
            count = await running.client.estimate_tokens(endpoint, body, COUNT_TIMEOUT_S)
            if count is not None:
                return count
        if model.tokenization is not None:
            return await count_with_command(model.tokenization, fields, self._manager.reaper)
        return None

    # -- what the models endpoints show --------------------------------------------------------

    def list_models(self) -> list[dict[str, Any]]:
        """All models that are not hidden, in OpenAI's shape with what clients need of ours."""
        return [self._describe(m) for m in self._config.models if not m.hidden]

    def get_model_info(self, name: str) -> dict[str, Any]:
        """One model.

        Raises:
            ModelNotFound
        """
        return self._describe(self.find_model(name))

    def _describe(self, model: ModelConfig) -> dict[str, Any]:
        running = self._manager.engine_of(model.name)
        contexts = self._manager.contexts_of(model.name)
        return {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "trio-gateway",
            "description": model.description,
            "aliases": list(model.aliases),
            "context_length": max(contexts),
            "contexts": contexts,
            "loaded": running is not None,
            "loaded_variant": running.variant.name if running is not None else None,
        }


def smallest_holding(contexts: Sequence[int], need: int) -> int | None:
    """The smallest of the contexts that holds the need."""
    return min((c for c in contexts if c >= need), default=None)


def _too_long(
    model: str, need: int, prompt: int, answer: int | None, largest: int, exactness: str = ""
) -> str:
    wanted = f" and {answer} for the answer (max_tokens)" if answer else ""
    return (
        f"the request needs {exactness}{need} tokens ({exactness}{prompt} for the prompt{wanted}), "
        f"but the largest context of {model} is {largest} tokens; shorten the prompt"
        + (" or ask for a shorter answer" if answer else "")
    )
