"""Which form a request to `/completions` or `/embeddings` has: llama.cpp's own, or OpenAI's. Pure.

Under `/v1` both are OpenAI's. Without it a llama-server has endpoints of its own there, whose
answers look different; but OpenAI clients whose base URL lacks the `/v1` ask there, too. What only
one of the two has in its body tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trio_gateway import rawjson
from trio_gateway.config.schema import ModelConfig
from trio_gateway.rawjson import Members
from trio_gateway.server.api.endpoint import Endpoint
from trio_gateway.server.api.endpoints import COMPLETION, COMPLETIONS, EMBEDDING, EMBEDDINGS

# By path: the row that answers a body in llama.cpp's own form.
OWN_FORMS: Mapping[str, Endpoint] = {"/completions": COMPLETION, "/embeddings": EMBEDDING}
OPENAI_FORMS: Mapping[str, Endpoint] = {COMPLETION.name: COMPLETIONS, EMBEDDING.name: EMBEDDINGS}
# Fields that say what llama.cpp's own answer has in it, or how long it is.
_OWN_FIELDS: Mapping[str, frozenset[str]] = {
    COMPLETION.name: frozenset(
        {"n_predict", "n_probs", "post_sampling_probs", "return_tokens", "response_fields"}
    ),
    EMBEDDING.name: frozenset({"content", "embd_normalize"}),
}
_TEXTS: Mapping[str, str] = {COMPLETION.name: "prompt", EMBEDDING.name: "input"}


def is_own_form(own: Endpoint, model: str | None, members: Members) -> bool:
    """Whether it is llama.cpp's, whose row is `own`: OpenAI's names a model, has none of its
    fields, and no texts that are objects (`{"prompt_string": …, "multimodal_data": […]}`)."""
    if model is None or not _OWN_FIELDS[own.name].isdisjoint(members):
        return True
    texts = members.get(_TEXTS[own.name])
    return texts is not None and _has_objects(bytes(texts))


def gives_token_vectors(own: Endpoint, model: ModelConfig) -> bool:
    """Whether the model's engines give a vector for each token, which OpenAI's form has no place
    for: a llama-server refuses it then."""
    if own is not EMBEDDING:
        return False
    return any(variant.gives_token_vectors for variant in model.variants)


def _has_objects(raw: bytes) -> bool:
    if raw.startswith(b"[") and b"{" in raw:
        entries = rawjson.decode_or_none(raw, list[msgspec.Raw])
        return any(bytes(entry).startswith(b"{") for entry in entries or ())
    return raw.startswith(b"{")
