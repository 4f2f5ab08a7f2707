"""What a request is counted as: a chat, a prompt or an input, whatever API it came through. Pure.

The Responses and the Messages API are chats in other words; the conversions are those that
llama.cpp's server makes itself (server-common.cpp, of October 2026), so that the counts are those
of the engine. They leave out what no prompt has in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from trio_gateway.models.need.bounds import (
    IMAGE_TOKENS,
    Overhead,
    answer_tokens,
    is_plain,
    least_of_text,
    lower_bound,
    upper_bound,
)
from trio_gateway.models.need.contents import ChatSize, RequestFields, chat_size, text_size
from trio_gateway.models.need.countable import Countable, countable_chat, countable_prompts

Json = dict[str, Any]


class CountedForm(msgspec.Struct, frozen=True):
    """`kind`: the endpoint by whose rules it is counted. `body`: the request in its terms, of which
    `fields` are those that the gateway itself looks at, decoded. `query`: each of the inputs is
    read together with it; it is never put before each of them, as 50,000 copies may be gigabytes.
    """

    kind: str
    fields: RequestFields
    body: bytes
    query: str | None = None

    @property
    def answer(self) -> int | None:
        """The answer's maximum that the request names; None: it names none."""
        return answer_tokens(self.kind, self.fields)

    def size(self) -> ChatSize:
        """Raises RecursionError: nested deeper than any JSON that an engine reads."""
        return chat_size(self.fields)

    def is_plain(self, size: ChatSize) -> bool:
        """Whether an answer's `usage` is about just what was counted: one prompt, and no media."""
        return is_plain(self.kind, self.fields, size)

    def upper_bound(
        self, overhead: Overhead, image_tokens: int = IMAGE_TOKENS, size: ChatSize | None = None
    ) -> int:
        """Never fewer tokens than the prompt has. `size`: its own, if it is known."""
        most = upper_bound(self.kind, self.fields, overhead, image_tokens, size)
        return most if self.query is None else most + text_size(self.query) + 1

    def lower_bound(self, image_tokens: int = IMAGE_TOKENS) -> int:
        """Never more tokens than the prompt has."""
        least = lower_bound(self.kind, self.fields, image_tokens)
        return least if self.query is None else least + least_of_text(self.query)

    def countable(self, image_tokens: int = IMAGE_TOKENS) -> Countable | None:
        """What is counted of it; None: nothing, as it is too long."""
        if self.kind == "chat/completions":
            return countable_chat(self.fields, self.body)
        return countable_prompts(self.kind, self.fields, self.body, self.query, image_tokens)

    def key(self, model: str) -> bytes:
        """A digest of all that the count depends on. Prompts are secrets: none is kept."""
        fields = self.fields
        content = (
            (
                fields.messages,
                fields.tools,
                fields.chat_template_kwargs,
                fields.tool_choice,
                fields.response_format,
                fields.reasoning_effort,
                fields.reasoning_format,
                fields.add_generation_prompt,
                fields.continue_final_message,
            )
            if self.kind == "chat/completions"
            else (fields.input if self.kind == "embeddings" else fields.prompt, self.query)
        )
        text = msgspec.json.encode([model, self.kind, content])
        return hashlib.blake2b(text, digest_size=16).digest()


def as_is(kind: str, request: Json, body: bytes) -> CountedForm:
    """For a request that is in the right terms already: `request` is `body`, decoded."""
    return CountedForm(kind, msgspec.convert(request, RequestFields), body)


def responses_as_chat(request: Json) -> CountedForm:
    messages: list[Json] = []
    if isinstance(instructions := request.get("instructions"), str) and instructions:
        messages.append({"role": "system", "content": instructions})
    given = request.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages += [_message_of_item(item) for item in _objects(items)]
    tools = [_tool(tool, tool) for tool in _objects(request.get("tools"))]
    return _chat(request, messages, tools, request.get("max_output_tokens"))


def _message_of_item(item: Json) -> Json:
    match item.get("type"):
        case "function_call":
            call = {"name": item.get("name"), "arguments": item.get("arguments")}
            return _assistant([{"id": item.get("call_id"), "type": "function", "function": call}])
        case "function_call_output":
            output = item.get("output")
            return {"role": "tool", "tool_call_id": item.get("call_id"), "content": _parts(output)}
        case "reasoning":
            text = "".join(_texts(item.get("content")))
            return {"role": "assistant", "content": "", "reasoning_content": text}
    return {"role": item.get("role", "user"), "content": _parts(item.get("content"))}


def messages_as_chat(request: Json) -> CountedForm:
    messages: list[Json] = []
    if system := "".join(_texts(request.get("system"))):
        messages.append({"role": "system", "content": system})
    for message in _objects(request.get("messages")):
        messages += _messages_of(message)
    tools = [_tool(tool, {**tool, "parameters": tool.get("input_schema")})
             for tool in _objects(request.get("tools"))]  # fmt: skip
    return _chat(request, messages, tools, request.get("max_tokens"))


def _messages_of(message: Json) -> list[Json]:
    """One message of Anthropic's may be several: each tool's result is one of its own."""
    content = message.get("content")
    if not isinstance(content, list):
        return [{"role": message.get("role"), "content": content}]
    parts: list[Json] = []
    calls: list[Json] = []
    results: list[Json] = []
    reasoning: list[str] = []
    for block in _objects(content):
        match block.get("type"):
            case "tool_use":
                arguments = msgspec.json.encode(block.get("input")).decode()
                call = {"name": block.get("name"), "arguments": arguments}
                calls.append({"id": block.get("id"), "type": "function", "function": call})
            case "tool_result":
                text = _parts(block.get("content"))
                results.append(
                    {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text}
                )
            case "thinking":
                reasoning.append(str(block.get("thinking") or ""))
            case _:
                parts.append(_part(block))
    made: Json = {"role": message.get("role"), "content": parts}
    if calls:
        made["tool_calls"] = calls
    if thought := "".join(reasoning):
        made["reasoning_content"] = thought
    return [made, *results] if parts or calls or thought or not results else results


def infill_as_prompt(request: Json) -> CountedForm:
    texts = [request.get(name) for name in ("input_prefix", "prompt", "input_suffix")]
    for extra in _objects(request.get("input_extra")):
        texts += [extra.get("filename"), extra.get("text")]
    prompt = "\n".join(text for text in texts if isinstance(text, str))
    return _form("completions", {"prompt": prompt, "n_predict": request.get("n_predict")})


def embedding_as_input(request: Json) -> CountedForm:
    given = request.get("content")
    return _form("embeddings", {"input": request.get("input") if given is None else given})


def rerank_as_input(request: Json) -> CountedForm:
    """Each document is read together with the query."""
    documents = request.get("documents") or request.get("texts")
    query, texts = str(request.get("query")), []
    for document in documents if isinstance(documents, list) else ():
        text = document.get("text") if isinstance(document, dict) else document
        texts.append(text if isinstance(text, str) else str(text))
    if not texts:
        return _form("embeddings", {"input": query})
    # No body: what is counted is made of its largest documents (`countable`).
    return CountedForm("embeddings", RequestFields(input=texts), b"", query)


# -- parts --------------------------------------------------------------------------------------


def _parts(content: Any) -> Any:
    """Text as it is; the parts of a content in the terms of chat completions."""
    return [*map(_part, content)] if isinstance(content, list) else content


def _part(part: Any) -> Any:
    # Without patterns, which take three times as long: a conversation has many parts.
    if not isinstance(part, dict):
        return part
    kind, text = part.get("type"), part.get("text")
    if kind == "image" and "source" in part:
        return {"type": "image_url", "image_url": part["source"]}
    if kind in ("input_image", "input_file", "document"):
        return {"type": "image_url", "image_url": {}}
    return {"type": "text", "text": text} if isinstance(text, str) else part


def _texts(content: Any) -> Iterable[str]:
    if isinstance(content, str):
        return [content]
    found = [part.get("text") for part in _objects(content)]
    return [text for text in found if isinstance(text, str)]


def _objects(value: Any) -> list[Json]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _assistant(calls: list[Json]) -> Json:
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _tool(tool: Json, source: Json) -> Json:
    names = ("name", "description", "parameters")
    function = {name: source[name] for name in names if source.get(name) is not None}
    return {"type": "function", "function": function}


def _chat(request: Json, messages: list[Json], tools: list[Json], limit: Any) -> CountedForm:
    chat: Json = {"messages": messages, "max_tokens": limit}
    if tools:
        chat["tools"] = tools
    if (kwargs := request.get("chat_template_kwargs")) is not None:
        chat["chat_template_kwargs"] = kwargs
    return _form("chat/completions", chat)


def _form(kind: str, body: Json) -> CountedForm:
    return as_is(kind, body, msgspec.json.encode(body))
