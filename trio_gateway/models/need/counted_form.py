"""What a request is counted as: a chat, a prompt or an input, whatever API it came through. Pure.

The conversions are those that llama.cpp's server makes itself, so that the counts are those of the
engine. They leave out what no prompt has in it. Of the Responses and the Messages API, whose
requests are chats in other words, they have files of their own.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from trio_gateway.models.need.beginning import Beginning, beginning_of
from trio_gateway.models.need.bounds import (
    IMAGE_TOKENS,
    Overhead,
    answer_tokens,
    is_plain,
    least_of_text,
    lower_bound,
    upper_bound,
)
from trio_gateway.models.need.content_parts import objects
from trio_gateway.models.need.contents import ChatSize, RequestFields, chat_size, text_size
from trio_gateway.models.need.countable import Countable, countable_chat, countable_prompts

Json = dict[str, Any]
_LIMITS = ("n_predict", "max_completion_tokens", "max_tokens")


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

    def beginning(self) -> Beginning | None:
        """What its conversation is told by. Raises as `size`."""
        return beginning_of(self.kind, self.fields)

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
                fields.json_schema,
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


def infill_as_prompt(request: Json) -> CountedForm:
    texts = [request.get(name) for name in ("input_prefix", "prompt", "input_suffix")]
    for extra in objects(request.get("input_extra")):
        texts += [extra.get("filename"), extra.get("text")]
    prompt = "\n".join(text for text in texts if isinstance(text, str))
    limits = {name: request.get(name) for name in _LIMITS}
    return made_form("completions", {"prompt": prompt, **limits})


def embedding_as_input(request: Json) -> CountedForm:
    given = request.get("content")
    return made_form("embeddings", {"input": request.get("input") if given is None else given})


def rerank_as_input(request: Json) -> CountedForm:
    """Each document is read together with the query."""
    documents = request.get("documents") or request.get("texts")
    query, texts = str(request.get("query")), []
    for document in documents if isinstance(documents, list) else ():
        text = document.get("text") if isinstance(document, dict) else document
        texts.append(text if isinstance(text, str) else str(text))
    if not texts:
        return made_form("embeddings", {"input": query})
    # No body: what is counted is made of its largest documents (`countable`).
    return CountedForm("embeddings", RequestFields(input=texts), b"", query)


def made_form(kind: str, body: Json) -> CountedForm:
    """Of a request that was converted to this one."""
    return as_is(kind, body, msgspec.json.encode(body))
