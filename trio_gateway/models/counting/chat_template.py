"""Renders the chat template of a GGUF file as llama.cpp does, or refuses.

A last message of the assistant is not closed, so that the model goes on with it. Where the result
depends on what only the engine knows, there are several texts, and the longest one decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from trio_gateway.models.counting import template_families as families
from trio_gateway.models.counting.chat_shape import (
    Chat,
    Message,
    asked_schema,
    join_parts,
    merge_system_message,
    preserving,
    shape_message,
    shape_tool,
    template_kwargs,
    text_parts,
)
from trio_gateway.models.counting.refusal import CannotCount
from trio_gateway.models.counting.template_abilities import abilities_of
from trio_gateway.models.counting.template_language import Sandbox
from trio_gateway.models.counting.template_use import OWN_TEMPLATE, TemplateUse

# Marks around the thoughts that an engine puts before an answer that it goes on with.
TOKENS_AROUND_THOUGHTS = 32


class Rendered(NamedTuple):
    """The prompt in each form that it may have, and tokens that the engine may add to it."""

    texts: Sequence[str]
    extra_tokens: int
    exact: bool


class Frame(NamedTuple):
    """BOS and EOS as text, and whether the tokenizer puts them around a prompt by itself."""

    bos: str
    eos: str
    adds_bos: bool
    adds_eos: bool


class ChatTemplate:
    """One template.

    Raises:
        CannotCount: it is broken, or takes no text.
    """

    def __init__(self, source: str, frame: Frame) -> None:
        self._source, self._frame = families.patched(source), frame
        try:
            self._template = Sandbox().from_string(self._source)
        except Exception as error:  # noqa: BLE001 - a template is a program, and may be any text
            raise CannotCount(f"its chat template is broken ({type(error).__name__})") from None
        self._abilities = abilities_of(self._source)
        self._is_harmony = families.is_harmony(self._source)

    def render(self, chat: Chat, use: TemplateUse = OWN_TEMPLATE) -> Rendered:
        """The prompt of a chat; `use`: of its kwargs, and what the engine may choose.

        Raises:
            CannotCount: the engine would refuse it, or what it would do is not known here.
        """
        kwargs = template_kwargs(chat, use.kwargs)
        if tools := [shape_tool(tool) for tool in chat.tools or ()]:
            kwargs["tools"] = tools
        kwargs.update(families.extra_variables(self._source, asked_schema(chat)))
        found = {
            text: None
            for variables in self._possible(kwargs, use)
            for text in self._try(chat, self._messages(chat), variables)
        }
        if not (texts := list(found)):
            raise CannotCount("its chat template rejects this chat")
        is_certain = len(texts) == 1
        extra = 0
        if chat.ends_with_an_answer and families.may_put_thoughts_first(self._source):
            extra, is_certain = TOKENS_AROUND_THOUGHTS, False
        return Rendered(texts, extra, is_certain)

    def _possible(self, kwargs: Message, use: TemplateUse) -> Iterator[Message]:
        """The variables that it may get: some depend on how the engine was started."""
        thinking = [kwargs.get("enable_thinking", True)]
        is_sure = families.marks_thoughts(self._source) and not use.may_not_think
        if "enable_thinking" in self._source and "enable_thinking" not in kwargs and not is_sure:
            thinking = [True, False]
        kept: list[Message] = [{}]
        if "preserve_reasoning" in kwargs:
            kept = [preserving(kwargs["preserve_reasoning"])]
        elif use.may_keep_thoughts and any(name in self._source for name in preserving(True)):
            kept = [{}, preserving(True)]  # llama-server does so, unless it is told otherwise
        for enabled in thinking:
            for variables in kept:
                yield {**variables, **kwargs, "enable_thinking": enabled}

    def _messages(self, chat: Chat) -> list[Message]:
        able = self._abilities
        messages = [
            shape_message(
                message,
                takes_texts=able.texts,
                takes_parts=able.parts,
                arguments_as_objects=able.objects,
                knows_developers=self._is_harmony,
            )
            for message in chat.messages
        ]
        return messages if able.system else merge_system_message(messages)

    def _try(self, chat: Chat, messages: list[Message], variables: Message) -> Iterator[str]:
        """The prompt; nothing, if the template fails with these variables."""
        try:
            if chat.ends_with_an_answer:
                yield self._continued(chat, messages, variables)
            else:
                yield self._apply(messages, variables, asks=chat.add_generation_prompt)
        except CannotCount:
            raise
        except Exception:  # noqa: BLE001 - a template is a program, and may raise anything
            return

    def _continued(self, chat: Chat, messages: list[Message], variables: Message) -> str:
        *before, last = messages
        if before and before[-1]["role"] == "assistant":
            raise CannotCount("engines reject a chat that ends with two assistant messages")
        if "tool_calls" in last:
            raise CannotCount("engines reject a chat that ends with a call of a tool")
        closed = self._apply(before, variables, asks=False)
        content = chat.messages[-1].get("content")
        thoughts: str = last.get("reasoning_content", "")
        if not content and len(last) == 2:  # nothing but a role: nothing to go on with
            return closed
        opened = self._apply(before, variables, asks=True)
        same = next(
            (i for i, (a, b) in enumerate(zip(closed, opened, strict=False)) if a != b),
            min(len(closed), len(opened)),
        )
        if not families.may_put_thoughts_first(self._source):
            thoughts = ""
        return closed + opened[same:] + thoughts + join_parts(text_parts(content), "\n\n")

    def _apply(self, messages: list[Message], variables: Message, *, asks: bool) -> str:
        """The text; `asks`: with the beginning of an answer at its end."""
        frame, now = self._frame, datetime.now()
        messages = families.adjusted(self._source, messages)
        text: str = self._template.render(
            {
                "messages": messages,
                "bos_token": frame.bos,
                "eos_token": frame.eos,
                "datetime": now.strftime("%b %d %Y"),
                "date_string": now.strftime("%d %b %Y"),
                **variables,
                **({"add_generation_prompt": True} if asks else {}),
            }
        )
        if frame.adds_bos:
            text = text.removeprefix(frame.bos)
        if frame.adds_eos:
            text = text.removesuffix(frame.eos)
        return families.finished(self._source, text, asks=asks)
