"""What a chat template takes, found out as llama.cpp finds it out: by watching it render chats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from jinja2 import Template

from trio_gateway.models.counting.chat_shape import Message
from trio_gateway.models.counting.refusal import CannotCount
from trio_gateway.models.counting.template_language import Sandbox

_MARKER = "a-text-to-look-for"
_ARGUMENT = "arg"
_TOOL: Message = {
    "name": "tool",
    "type": "function",
    "function": {
        "name": "tool1",
        "description": "Tool description",
        "parameters": {
            "type": "object",
            "properties": {_ARGUMENT: {"type": "string", "description": "Arg description"}},
            "required": [_ARGUMENT],
        },
    },
}


class Abilities(NamedTuple):
    """`texts`, `parts`: what the content of a message may be. `system`: it shows system messages.
    `objects`: it wants the arguments of calls as objects, not as JSON in a text."""

    texts: bool
    parts: bool
    system: bool
    objects: bool


def abilities_of(source: str) -> Abilities:
    """Raises:
    CannotCount: it takes neither texts nor parts.
    """
    watch = _Watch()
    environment = Sandbox(watch.whole)
    environment.tests["string"] = watch.is_string
    template = environment.from_string(source)
    texts, parts = _content(template, watch)
    return Abilities(texts, parts, _system(template), _objects(template))


def _content(template: Template, watch: _Watch) -> tuple[bool, bool]:
    shown = _try(template, [{"role": "user", "content": _WatchedText(_MARKER, watch)}])
    parts = watch.is_walked
    texts = shown is not None and (not parts or _MARKER in shown)
    if watch.is_asked:
        watch.is_walked = False
        done = _try(template, [{"role": "user", "content": _WatchedList(watch)}]) is not None
        parts = parts or (done and watch.is_walked)
    if not texts and not parts:
        raise CannotCount("its chat template does not accept text")
    return texts, parts


def _system(template: Template) -> bool:
    system = _WatchedObject({"role": "system", "content": "System message"})
    _try(template, [system, {"role": "user", "content": "User message"}])
    return "content" in system.seen


def _objects(template: Template) -> bool:
    arguments = _WatchedObject({_ARGUMENT: "value"})
    call = {
        "id": "call00001",
        "type": "function",
        "function": {"name": "tool1", "arguments": arguments},
    }
    user = {"role": "user", "content": "User message"}
    messages: list[Message] = [
        user,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "Tool response", "tool_call_id": "call00001"},
        {"role": "assistant", "content": "The tool response was 'tool response'"},
        user,
    ]
    return _try(template, messages, [_TOOL]) is not None and _ARGUMENT in arguments.seen


def _try(
    template: Template, messages: list[Message], tools: list[Message] | None = None
) -> str | None:
    """What it makes of a chat; None: it fails."""
    try:
        return template.render(
            messages=messages,
            tools=tools or [],
            bos_token="",
            eos_token="",
            add_generation_prompt=True,
        )
    except Exception:  # noqa: BLE001 - a template is a program, and may raise anything
        return None


class _Watch:
    """What a template did to the content of a message."""

    def __init__(self) -> None:
        self.is_asked = self.is_walked = False

    def is_string(self, value: object) -> bool:
        self.is_asked = self.is_asked or isinstance(value, _WatchedText)
        return isinstance(value, str)

    def whole(self, value: object) -> object:
        """It is written as JSON or text, with all that is in it: which is no walk through it."""
        if isinstance(value, _WatchedObject):
            value.seen.update(value)
        if isinstance(value, dict):
            return {key: self.whole(item) for key, item in dict.items(value)}
        if isinstance(value, list):
            return [self.whole(item) for item in list.__iter__(value)]
        return str(value) if isinstance(value, _WatchedText) else value


class _WatchedText(str):
    watch: _Watch

    def __new__(cls, text: str, watch: _Watch) -> _WatchedText:
        made = super().__new__(cls, text)
        made.watch = watch
        return made

    def __iter__(self) -> Iterator[str]:
        self.watch.is_walked = True
        return super().__iter__()

    def __getitem__(self, key: Any) -> str:
        self.watch.is_walked = self.watch.is_walked or isinstance(key, int)
        return super().__getitem__(key)


class _WatchedList(list[Message]):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __iter__(self) -> Iterator[Message]:
        self._watch.is_walked = True
        return super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        self._watch.is_walked = True
        return super().__getitem__(key)


class _WatchedObject(dict[str, Any]):
    """`seen`: the keys whose values the template looked at."""

    def __init__(self, content: Message) -> None:
        super().__init__(content)
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)

    def items(self) -> Any:
        self.seen.update(super().keys())
        return super().items()

    def values(self) -> Any:
        self.seen.update(super().keys())
        return super().values()
