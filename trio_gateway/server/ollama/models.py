"""What `/api/tags`, `/api/show` and `/api/ps` say about models and engines. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from trio_gateway.config.schema import ModelConfig
from trio_gateway.config.server_options import GPU_LAYERS, MODEL
from trio_gateway.gguf.quantization import quantization
from trio_gateway.models.capabilities import Capability, template_of
from trio_gateway.models.known_model import KnownModel
from trio_gateway.models.model_facts import ModelFacts
from trio_gateway.server.api.model_entry import shared_fields, words
from trio_gateway.server.ollama.answer import rfc3339

# Clients ask for it before they use what came with it; GitHub Copilot wants 0.6.4 or later. It is
# the version whose API is spoken here.
OLLAMA_VERSION = "0.12.6"

NEVER = "2318-01-01T00:00:00Z"  # Ollama's own answer for a model that stays is about 292 years off

_OURS = frozenset({"architecture", "basename"})  # of what a file says about itself


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that holds a model. `memory_bytes` None: not known; its file's size is shown."""

    context: int
    memory_bytes: int | None
    expires_at: str


def tags_answer(models: Sequence[KnownModel], began_s: float) -> dict[str, Any]:
    """For `/api/tags`: the models that are to be listed. `began_s`: Unix time, when a model without
    a file is said to have been modified."""
    return {"models": [_tag(known, began_s) for known in models]}


def ps_answer(engines: Sequence[tuple[KnownModel, LoadedModel]]) -> dict[str, Any]:
    """For `/api/ps`: one entry for each engine."""
    return {"models": [_loaded(*engine) for engine in engines]}


def show_answer(known: KnownModel, context: int, began_s: float) -> dict[str, Any]:
    """For `/api/show`. `context`: tokens that the variant serves that was asked for. No path is in
    it."""
    model, header = known.model, known.facts.header
    architecture = header.architecture if header is not None else "unknown"
    info: dict[str, Any] = {
        "general.architecture": architecture,
        "general.basename": model.name,  # what GitHub Copilot shows
        f"{architecture}.context_length": context,
    }
    if header is not None:
        info |= {
            f"{architecture}.{key}": value
            for key, value in header.values.items()
            if key != "context_length" and not isinstance(value, list)
        }
        info |= {f"general.{k}": v for k, v in header.general.items() if k not in _OURS}
    if known.facts.tensors is not None and known.facts.tensors.parameters:
        info["general.parameter_count"] = known.facts.tensors.parameters
    return {
        "modelfile": f"# {model.name} is configured in trio-gateway; it has no Modelfile.\n",
        "parameters": f"num_ctx {context}",
        "template": template_of(model, known.facts) or "",
        "details": details_of(known),
        "model_info": info,
        "capabilities": _words(known.likely),
        "modified_at": _modified_at(known, began_s),
        **shared_fields(known, context),
    }


def version_answer(gateway_version: str) -> dict[str, Any]:
    return {"version": OLLAMA_VERSION, "trio_gateway": gateway_version}


def digest_of(model: ModelConfig) -> str:
    """The same for as long as the model is configured the same; 64 hexadecimal digits."""
    launched = [[v.name, v.binary, v.args, v.context, v.connect] for v in model.variants]
    return hashlib.sha256(msgspec.json.encode([model.name, launched])).hexdigest()


def details_of(known: KnownModel) -> dict[str, Any]:
    """What is not known is an empty text, as with Ollama."""
    model, header = known.model, known.facts.header
    family = header.architecture if header is not None else ""
    return {
        "parent_model": "",
        "format": "gguf"
        if header is not None or model_file(model).lower().endswith(".gguf")
        else "",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": _parameter_size(known.facts),
        "quantization_level": quantization(header, PurePath(model_file(model)).name),
    }


def _words(found: frozenset[Capability]) -> list[str]:
    """In Ollama's words, as far as it has any."""
    wanted = {kind for kind in found if kind is not Capability.AUDIO}
    return ["embedding" if word == "embeddings" else word for word in words(wanted)]


def model_file(model: ModelConfig) -> str:
    """The file's path as the largest variant names it; empty if it names none."""
    return model.variants[-1].engine_args.value(MODEL) or ""


def _loaded(known: KnownModel, loaded: LoadedModel) -> dict[str, Any]:
    model, memory = known.model, loaded.memory_bytes
    size = known.facts.size_bytes if memory is None else memory
    return {
        "name": model.name,
        "model": model.name,
        "size": size,
        "digest": digest_of(model),
        "details": details_of(known),
        "expires_at": loaded.expires_at,
        "size_vram": 0 if _stays_on_cpu(model) else size,
        "context_length": loaded.context,
    }


def _stays_on_cpu(model: ModelConfig) -> bool:
    return model.variants[-1].engine_args.value(GPU_LAYERS) == "0"


def _tag(known: KnownModel, began_s: float) -> dict[str, Any]:
    model, capabilities = known.model, known.capabilities
    tag = {
        "name": model.name,
        "model": model.name,
        "modified_at": _modified_at(known, began_s),
        "size": known.facts.size_bytes,
        "digest": digest_of(model),
        "details": details_of(known),
        **shared_fields(known, known.context),
    }
    return tag if capabilities is None else {**tag, "capabilities": _words(capabilities)}


def _modified_at(known: KnownModel, began_s: float) -> str:
    modified_s = known.facts.modified_s
    return rfc3339(began_s if modified_s is None else modified_s)


def _parameter_size(facts: ModelFacts) -> str:
    """As the file says; otherwise as Ollama writes it."""
    label = facts.header.general.get("size_label") if facts.header is not None else None
    if isinstance(label, str):
        return label
    count = facts.tensors.parameters if facts.tensors is not None else 0
    for size, digits, unit in ((1e9, 1, "B"), (1e6, 2, "M"), (1e3, 2, "K")):
        if count >= size:
            return f"{count / size:.{digits}f}{unit}"
    return ""
