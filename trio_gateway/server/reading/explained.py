"""A request that is to be explained: which endpoint it is for, and what is to be counted of it.

It may be sent with its endpoint's name or path. Without that, what is in it tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from trio_gateway import rawjson
from trio_gateway.rawjson import Members
from trio_gateway.server.api.endpoint import Endpoint, Family
from trio_gateway.server.api.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDING,
    EMBEDDINGS,
    ENDPOINTS,
    INFILL,
)
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.api.own_form import OWN_FORMS, is_own_form
from trio_gateway.server.api.request_body import (
    OpenRequest,
    made_request,
    members_of,
    model_of,
)
from trio_gateway.server.ollama.request import Kind, OllamaCall, OpenCall, open_call

if TYPE_CHECKING:  # the processes that read large bodies do without it
    from trio_gateway.models.explanation import Question
    from trio_gateway.server.access.permissions import Permissions
    from trio_gateway.server.relay.prepare import Preparer

ROWS: Mapping[str, Endpoint] = {row.name: row for row in ENDPOINTS}
_COUNTED = {name: row for name, row in ROWS.items() if row.is_counted}
_BY_PATH = {path: row for row in _COUNTED.values() for path in row.paths}

# What only requests of one API have in them. Where several would do, the first one is meant.
_OLLAMAS = frozenset({"options", "keep_alive", "think"})
_OLLAMA_PROMPTS = _OLLAMAS | {"system", "template", "raw", "images", "context"}
_ANTHROPICS = frozenset({"system", "stop_sequences", "anthropic_version"})
_RESPONSES = frozenset(
    {
        "instructions", "max_output_tokens", "previous_response_id", "reasoning", "include",
        "tools", "tool_choice", "conversation", "store", "text", "truncation", "stream",
        "temperature", "top_p", "metadata", "background", "parallel_tool_calls", "max_tool_calls",
        "prompt_cache_key",
    }
)  # fmt: skip


def open_to_explain(name: str | None, data: bytes) -> OpenRequest | OpenCall:
    """A request for the endpoint of this name or path; without one, for the one that it looks like.

    Raises:
        ApiError: 400, no endpoint has that name or such a body; and as `open_request`.
    """
    named = None if name is None else _named(name)
    members = members_of(data)
    endpoint = named or _endpoint_by_content(members)
    if endpoint.family is Family.OLLAMA:
        return open_call(Kind(endpoint.name.removeprefix("api/")), data)
    own = OWN_FORMS.get(f"/{endpoint.name}")
    if own is not None and not (name or "").strip("/").startswith("v1/"):
        endpoint = own if is_own_form(own, model_of(members, own), members) else endpoint
    return OpenRequest(data, members, endpoint, model_of(members, endpoint))


def asked_to_explain(
    preparer: Preparer, opened: OpenRequest | OpenCall, permissions: Permissions
) -> Question:
    """What is asked about it.

    Raises:
        ApiError: as the endpoint itself.
    """
    if isinstance(opened, OpenRequest):
        row = opened.endpoint
        return preparer.counted(row, opened, row.family, permissions)
    model = preparer.find(opened.model, permissions).model  # before anything else is looked at
    asked = opened.read()
    row = row_of_call(asked)
    made = made_request(asked.request(model.name, model.largest_context), row)
    return preparer.counted(row, made, Family.OLLAMA, permissions, wish=asked.num_ctx or 0)


def row_of_call(asked: OllamaCall) -> Endpoint:
    """The row of the request that Ollama's becomes.

    Raises:
        ApiError: 400, it becomes none.
    """
    if asked.only_loads:
        message = "the request only loads or unloads its model: there is nothing to count in it"
        raise ApiError(400, message, code="missing_content")
    return ROWS[asked.endpoint]


def _named(name: str) -> Endpoint:
    bare = name.strip("/")
    for row in (_COUNTED.get(bare), _BY_PATH.get(f"/{bare}"), _BY_PATH.get(f"/v1/{bare}")):
        if row is not None:
            return row
    message = f"?endpoint={name[:40]}: expected one of {', '.join(sorted(_COUNTED))}"
    raise ApiError(400, message, code="unknown_endpoint", param="endpoint")


def _endpoint_by_content(members: Members) -> Endpoint:
    has = members.keys()
    if "messages" in has:
        if not _OLLAMAS.isdisjoint(has):
            return ROWS["api/chat"]
        is_anthropics = not _ANTHROPICS.isdisjoint(has) or (
            b'"input_schema"' in bytes(members.get("tools", b""))
        )
        return ROWS["messages"] if is_anthropics else CHAT
    if "query" in has and ("documents" in has or "texts" in has):
        return ROWS["rerank"]
    if "input_prefix" in has or "input_suffix" in has:
        return INFILL
    if "prompt" in has:
        return ROWS["api/generate"] if not _OLLAMA_PROMPTS.isdisjoint(has) else COMPLETIONS
    if "input" in has:
        if not _OLLAMAS.isdisjoint(has):
            return ROWS["api/embed"]
        is_chat = not _RESPONSES.isdisjoint(has) or _has_items(members["input"])
        return ROWS["responses"] if is_chat else EMBEDDINGS
    if "content" in has:
        return EMBEDDING
    message = (
        "the body has no `messages`, `prompt`, `input`, `content`, `documents` or `input_prefix`: "
        "send it as to one of the endpoints"
    )
    raise ApiError(400, message, code="missing_content")


def _has_items(raw: msgspec.Raw) -> bool:
    """Whether the input is a chat: messages and what else a conversation has."""
    entries = rawjson.decode_or_none(raw, list[msgspec.Raw]) or [msgspec.Raw(b"")]
    first = rawjson.members_or_none(bytes(entries[0])) or {}
    return "role" in first or "type" in first
