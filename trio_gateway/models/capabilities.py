"""What a model can do, as far as its options and its files say it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.schema import ModelConfig
from trio_gateway.config.server_options import POOLING, RERANKING, SKIP_CHAT_PARSING
from trio_gateway.config.template_choice import CHATML, template_choice
from trio_gateway.gguf.chat_template import knows_thinking, knows_tools
from trio_gateway.gguf.header import GgufHeader
from trio_gateway.models.model_facts import ModelFacts

_GENERATING = frozenset({"chat/completions", "completions", "responses", "messages", "completion"})


class Capability(enum.Enum):
    """The words of `/v1/models`."""

    COMPLETION = "completion"
    TOOLS = "tools"
    VISION = "vision"
    AUDIO = "audio"
    THINKING = "thinking"
    INSERT = "insert"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"


_MEDIA = (Capability.VISION, Capability.AUDIO)
_VECTORS = (Capability.EMBEDDINGS, Capability.RERANK)


def capabilities_of(
    model: ModelConfig, facts: ModelFacts, served: Collection[str]
) -> frozenset[Capability] | None:
    """Of the largest variant. None: not all of it is known.

    Args:
        served: what its engines serve, as in ENDPOINT_NAMES.
    """
    if not model.engine.has_server_options:
        return _elsewhere(model, facts, served)
    args, header = model.variants[-1].engine_args, facts.header
    if (found := _vectors(args, header)) is not None:
        return found | _media(args, facts)
    template = template_of(model, facts)
    if template is None or (args.has_projector is None and facts.engine_media is None):
        return None
    return frozenset({Capability.COMPLETION}) | _media(args, facts) | _chat(args, template, header)


def likely_capabilities(
    model: ModelConfig, facts: ModelFacts, served: Collection[str]
) -> frozenset[Capability]:
    """The same, for clients that must be told something: an engine of which no template is known
    is taken to do tools, as editors hide what does not."""
    known = capabilities_of(model, facts, served)
    if known is not None:
        return known
    found = {Capability.COMPLETION, Capability.TOOLS}
    if facts.header is not None and facts.header.fills_in:
        found.add(Capability.INSERT)
    if model.engine.has_server_options:
        found |= _media(model.variants[-1].engine_args, facts)
    return frozenset(found)


def template_of(model: ModelConfig, facts: ModelFacts) -> str | None:
    """The chat template that the model's engine uses for a chat with tools, or its name. None: not
    known."""
    header = facts.header
    own = None if header is None else header.tools_template or header.chat_template or CHATML
    if not model.engine.has_server_options:
        return own
    choice = template_choice(model.variants[-1].engine_args)
    given = facts.template if choice.file is not None else choice.text
    found = own if choice.is_own else given
    return facts.engine_template if found is None else found


def _elsewhere(
    model: ModelConfig, facts: ModelFacts, served: Collection[str]
) -> frozenset[Capability] | None:
    """Of an engine whose options are not known: as far as the configuration says what it serves."""
    if model.endpoints is None and facts.header is None:
        return None
    found = set[Capability]()
    if model.endpoints is not None:
        found |= {
            kind for kind in (Capability.EMBEDDINGS, Capability.RERANK) if kind.value in served
        }
        if _GENERATING.isdisjoint(served):
            return frozenset(found)
    if facts.header is None:
        return None
    if facts.header.is_embedding:
        return frozenset({Capability.EMBEDDINGS})
    template = template_of(model, facts)
    assert template is not None
    return frozenset({*found, Capability.COMPLETION}) | _chat(
        EngineArgs(()), template, facts.header
    )


def _vectors(args: EngineArgs, header: GgufHeader | None) -> frozenset[Capability] | None:
    """Of an engine that serves no chats; None: it does."""
    is_embedding = header is not None and header.is_embedding
    if not args.is_embedding and not is_embedding:
        return None
    pooling = args.value(POOLING)
    if pooling is None and header is not None and header.is_reranker:
        pooling = "rank"
    ranks = args.is_on(RERANKING) or pooling == "rank"
    return frozenset({Capability.RERANK if ranks else Capability.EMBEDDINGS})


def _media(args: EngineArgs, facts: ModelFacts) -> frozenset[Capability]:
    if args.has_projector is None:  # the engine may download one
        said = facts.engine_media or ()
        return frozenset(kind for kind in _MEDIA if kind.value in said)
    if not args.has_projector:
        return frozenset()
    if facts.projector is None:  # nearly all are for images
        return frozenset({Capability.VISION})
    hears = bool(facts.projector.number("has_audio_encoder"))
    sees = facts.projector.number("has_vision_encoder")
    found = {Capability.AUDIO: hears, Capability.VISION: not hears if sees is None else bool(sees)}
    return frozenset(kind for kind, can in found.items() if can)


def _chat(args: EngineArgs, template: str, header: GgufHeader | None) -> frozenset[Capability]:
    found = set[Capability]()
    if header is not None and header.fills_in:
        found.add(Capability.INSERT)
    # Without a program, llama-server refuses tools; a comment is no program.
    if template_choice(args).uses_jinja and not args.is_on(SKIP_CHAT_PARSING):
        if knows_tools(template):
            found.add(Capability.TOOLS)
        if knows_thinking(template):
            found.add(Capability.THINKING)
    return frozenset(found)
