"""Renders the chat template of a GGUF file as llama.cpp does, or refuses.

A last message of the assistant is not closed, so that the model goes on with it. Where the result
depends on what only the engine knows, there are several texts, and the longest one decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trio_gateway.models.counting.chat_shape import (
    Chat,
    Message,
    call_count,
    join_parts,
    shape_message,
    shape_tool,
    template_kwargs,
    text_parts,
)
from trio_gateway.models.counting.refusal import CannotCount

# An allowance for what an engine may say about a tool in words of its own.
TOKENS_PER_TOOL = 64

# llama.cpp changes the messages or the prompt for templates with these, each in its own way.
_OWN_HANDLING = (
    "<|channel|>", "chat_format=llm-jp", "[ARGS]", "<atem:function_calls>", ">>>all",
    "<|tool_calls_section_begin|>", "<|end_of_msg|>", "<role>ASSISTANT</role>", "<|START_TEXT|>",
    "<|tool_list_start|>", "List of tools: [", "<|role_sep|>", "]<]minimax[>[", "dsml_token",
    "<|tool_call>call:", "Tool usage guidelines:", "in JSONSchema format",
    "if (message['content'] is none or",
)  # fmt: skip
# Where a template knows of thoughts, the engine puts some before an answer that it goes on with.
_THOUGHTS = ("think", "reason", "<function=")
_MARKER = "a-text-to-look-for"
_LARGEST_POWER = 64


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
        CannotCount: llama.cpp treats it in a way of its own, or it is broken.
    """

    def __init__(self, source: str, frame: Frame) -> None:
        if any(mark in source for mark in _OWN_HANDLING):
            raise CannotCount("engines handle its chat template in a special way")
        self._source, self._frame = source, frame
        probe = _ContentProbe()
        environment = _environment()
        environment.tests["string"] = probe.is_string
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # noqa: BLE001 - a template is a program, and may be any text
            raise CannotCount(f"its chat template is broken ({type(error).__name__})") from None
        self._takes_texts, self._takes_parts = self._content_types(probe)
        self._takes_system = self._shows_system()

    def render(self, chat: Chat) -> Rendered:
        """The prompt of a chat.

        Raises:
            CannotCount: the engine would refuse it, or what it would do is not known here.
        """
        kwargs = template_kwargs(chat)
        shows_calls = call_count(chat) > 0 and "tool_calls" in self._source
        forms = [self._messages(chat, as_objects=False)]
        if shows_calls:
            forms.append(self._messages(chat, as_objects=True))
        thinking = [kwargs.get("enable_thinking", True)]
        if "enable_thinking" in self._source and "enable_thinking" not in kwargs:
            thinking = [True, False]  # it depends on how the engine was started
        tools = [shape_tool(tool) for tool in chat.tools or ()]
        if tools:
            kwargs["tools"] = tools
        found = {
            text: None
            for messages in forms
            for enabled in thinking
            for text in self._try(chat, messages, {**kwargs, "enable_thinking": enabled})
        }
        texts = list(found)
        if not texts:
            raise CannotCount("its chat template rejects this chat")
        if tools and "tools" not in self._source:  # an engine may describe them itself
            described = json.dumps(tools, ensure_ascii=False)
            texts = [text + described for text in texts]
        added = len(tools) + call_count(chat) * shows_calls
        return Rendered(texts, added * TOKENS_PER_TOOL, exact=not added and len(texts) == 1)

    def _messages(self, chat: Chat, *, as_objects: bool) -> list[Message]:
        messages = [self._shaped(message, as_objects=as_objects) for message in chat.messages]
        if messages and messages[0]["role"] == "system" and not self._takes_system:
            raise CannotCount("its chat template has no place for a system message")
        return messages

    def _shaped(self, message: Message, *, as_objects: bool = False) -> Message:
        return shape_message(
            message,
            takes_texts=self._takes_texts,
            takes_parts=self._takes_parts,
            arguments_as_objects=as_objects,
        )

    def _try(self, chat: Chat, messages: list[Message], variables: Message) -> Iterator[str]:
        """The prompt; nothing, if the template fails with these variables."""
        try:
            if messages and messages[-1]["role"] == "assistant":
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
        if "tool_calls" in last or "reasoning_content" in last:
            raise CannotCount("the last message has more in it than the start of an answer")
        if any(word in self._source for word in _THOUGHTS):
            raise CannotCount("its chat template may put reasoning before an unfinished answer")
        closed = self._apply(before, variables, asks=False)
        content = chat.messages[-1].get("content")
        if not content and len(last) == 2:  # nothing but a role: nothing to go on with
            return closed
        opened = self._apply(before, variables, asks=True)
        same = next(
            (i for i, (a, b) in enumerate(zip(closed, opened, strict=False)) if a != b),
            min(len(closed), len(opened)),
        )
        return closed + opened[same:] + join_parts(text_parts(content), "\n\n")

    def _apply(self, messages: list[Message], variables: Message, *, asks: bool) -> str:
        """The text; `asks`: with the beginning of an answer at its end."""
        frame, now = self._frame, datetime.now()
        text = self._template.render(
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
        return text.removesuffix(frame.eos) if frame.adds_eos else text

    # -- what the template takes ---------------------------------------------------------------

    def _probe(self, *messages: Message) -> str | None:
        try:
            return self._apply(list(messages), {"tools": []}, asks=True)
        except Exception:  # noqa: BLE001 - a template is a program, and may raise anything
            return None

    def _content_types(self, probe: _ContentProbe) -> tuple[bool, bool]:
        """Whether it takes texts, and whether lists of parts, as llama.cpp finds it out."""
        shown = self._probe({"role": "user", "content": _ProbedText(probe)})
        takes_parts = probe.is_walked
        takes_texts = shown is not None and (not takes_parts or _MARKER in shown)
        if probe.is_asked:
            probe.is_walked = False
            done = self._probe({"role": "user", "content": _ProbedList(probe)}) is not None
            takes_parts = takes_parts or (done and probe.is_walked)
        if not takes_texts and not takes_parts:
            raise CannotCount("its chat template does not accept text")
        return takes_texts, takes_parts

    def _shows_system(self) -> bool:
        system = self._shaped({"role": "system", "content": _MARKER})
        shown = self._probe(system, self._shaped({"role": "user", "content": "x"}))
        return shown is not None and _MARKER in shown


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's own, without powers that take hours inside of one operation."""

    intercepted_binops = frozenset({"**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if abs(right) > _LARGEST_POWER:
            raise SecurityError("a power is too large")
        return super().call_binop(context, operator, left, right)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """jinja2's own escapes what HTML would not show as it is."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(_message: str) -> NoReturn:
    raise TemplateError  # without the message: it may quote the chat


class _ContentProbe:
    """What a template did to the content of a message."""

    def __init__(self) -> None:
        self.is_asked = self.is_walked = False

    def is_string(self, value: object) -> bool:
        self.is_asked = self.is_asked or isinstance(value, _ProbedText)
        return isinstance(value, str)


class _ProbedText(str):
    probe: _ContentProbe

    def __new__(cls, probe: _ContentProbe) -> _ProbedText:
        made = super().__new__(cls, _MARKER)
        made.probe = probe
        return made

    def __iter__(self) -> Iterator[str]:
        self.probe.is_walked = True
        return super().__iter__()

    def __getitem__(self, key: Any) -> str:
        self.probe.is_walked = self.probe.is_walked or isinstance(key, int)
        return super().__getitem__(key)


class _ProbedList(list[Message]):
    def __init__(self, probe: _ContentProbe) -> None:
        super().__init__()
        self._probe = probe

    def __iter__(self) -> Iterator[Message]:
        self._probe.is_walked = True
        return super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        self._probe.is_walked = True
        return super().__getitem__(key)
