"""What another gateway says that it has: its list of models, checked and bounded. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_gateway.config.engine_types import ENDPOINT_NAMES
from trio_gateway.engine.scheduling.model_load import LoadState, ModelLoad
from trio_gateway.models.names import LONGEST_NAME

# Of what a gateway runs itself: others may have models of ours in their lists.
TARGET = "/v1/models?own=true"
MODELS_MAX = 1000  # of one gateway
_CONTEXTS_MAX = 32
_DESCRIPTION_MAX = 1000


class ListedModel(msgspec.Struct, frozen=True):
    """`contexts`: tokens, the smallest first. `endpoints`, `capabilities` None: it does not say.
    `load`: what of it is in memory there, now."""

    name: str
    contexts: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    description: str = ""
    endpoints: frozenset[str] | None = None
    capabilities: frozenset[str] | None = None
    load: ModelLoad = ModelLoad(LoadState.UNLOADED)


class _Status(msgspec.Struct):
    value: str = ""
    failed: bool = False


class _Entry(msgspec.Struct):
    id: str
    aliases: list[str] = []
    description: str = ""
    contexts: list[int] = []
    context_length: int | None = None
    max_model_len: int | None = None
    endpoints: list[str] | None = None
    capabilities: list[str] | None = None
    status: _Status | None = None
    loaded_variant: str | None = None


class _List(msgspec.Struct):
    data: list[msgspec.Raw]


def read_listing(body: bytes) -> tuple[ListedModel, ...]:
    """The models of an answer. What cannot be used is left out: a model without a context, say.

    Raises:
        ValueError: it is no list of models.
    """
    try:
        entries = msgspec.json.decode(body, type=_List).data
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no list of models: {error}") from None
    read = (_read(entry) for entry in entries[:MODELS_MAX])
    by_name = {model.name: model for model in read if model is not None}
    return tuple(by_name.values())


def _read(raw: msgspec.Raw) -> ListedModel | None:
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
    except (msgspec.DecodeError, RecursionError):
        return None
    contexts = entry.contexts or [entry.context_length or entry.max_model_len or 0]
    usable = sorted({context for context in contexts if 0 < context < 1 << 40})[:_CONTEXTS_MAX]
    if not usable or not _is_name(entry.id):
        return None
    return ListedModel(
        name=entry.id,
        contexts=tuple(usable),
        aliases=tuple(dict.fromkeys(filter(_is_name, entry.aliases[:_CONTEXTS_MAX]))),
        description=entry.description[:_DESCRIPTION_MAX],
        endpoints=None if entry.endpoints is None else ENDPOINT_NAMES & {*entry.endpoints},
        capabilities=None if entry.capabilities is None else frozenset(entry.capabilities),
        load=_load(entry),
    )


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text.isprintable() and text == text.strip()


def _load(entry: _Entry) -> ModelLoad:
    said = entry.status or _Status()
    state = next((state for state in LoadState if state.value == said.value), LoadState.UNLOADED)
    variant = entry.loaded_variant if state is LoadState.LOADED else None
    return ModelLoad(state, variant, has_failed=said.failed)


def furthest(loads: Sequence[ModelLoad]) -> ModelLoad:
    """Of one model that several have: where it is loaded, or else where it is on its way."""
    order = (LoadState.LOADED, LoadState.LOADING, LoadState.UNLOADED)
    return min(loads, key=lambda load: (order.index(load.state), load.has_failed))
