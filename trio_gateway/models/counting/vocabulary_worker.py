"""Counts prompt tokens with the vocabularies of GGUF files: a program that `vocabulary.py` runs.

One JSON object a line comes in, one goes out:

    {"gguf": path, "chat": {"messages": …, …}, "use": {…}}   → {"tokens": 123, "exact": true}
    {"gguf": path, "prompts": ["…", …]}          → the same, of the largest
    {"gguf": path, "render": {"messages": …}}    → {"text": "…"}
    anything that it cannot say                  → {"refused": "why"}
    a template that takes too long               → {"refused": "why", "costly": true}

The template has a limit of time and of memory (`allowance.py`). Both are what this process can do
for itself; the rest is up to `vocabulary.py`, which ends it.

Prompts are secrets: no answer but `text` has a part of them, and nothing else is written anywhere.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from trio_gateway.config.template_choice import CHATML
from trio_gateway.models.counting import allowance
from trio_gateway.models.counting.chat_shape import Chat
from trio_gateway.models.counting.chat_template import ChatTemplate, Frame, Rendered
from trio_gateway.models.counting.gguf_vocabulary import GgufVocabulary
from trio_gateway.models.counting.refusal import CannotCount
from trio_gateway.models.counting.template_families import CHATML_TEMPLATE
from trio_gateway.models.counting.template_use import OWN_TEMPLATE, TemplateUse

_KEPT_FILES = 3  # 30 to 150 MB each
_KEPT_TEMPLATES = 4  # of one file
_QUESTION_S = 60  # of a processor's time; far above what `vocabulary.py` waits for
_LONGEST_TEMPLATE = 1 << 20  # characters; the longest in use have 30,000


class Question(msgspec.Struct, frozen=True):
    gguf: str
    chat: Chat | None = None
    render: Chat | None = None
    prompts: list[str] | None = None
    use: TemplateUse = OWN_TEMPLATE


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    tokens: int | None = None
    exact: bool | None = None
    text: str | None = None
    refused: str | None = None
    costly: bool = False


class TooLong(BaseException):
    """Not an Exception: whatever a template raises is, and is handled where it is rendered."""


class _File:
    """A vocabulary, and its templates once they are asked for."""

    def __init__(self, path: Path) -> None:
        self.vocabulary = GgufVocabulary(path)
        self._templates: dict[str, ChatTemplate] = {}

    def render(self, chat: Chat, use: TemplateUse) -> Rendered:
        source = self._source(use, has_tools=bool(chat.tools))
        if len(source) > _LONGEST_TEMPLATE:
            raise CannotCount("its chat template is too long")
        if (template := self._templates.get(source)) is None:
            known = self.vocabulary
            frame = Frame(known.bos, known.eos, known.adds_bos, known.adds_eos)
            template = ChatTemplate(source, frame)
            while len(self._templates) >= _KEPT_TEMPLATES:
                self._templates.pop(next(iter(self._templates)))
            self._templates[source] = template
        return template.render(chat, use)

    def _source(self, use: TemplateUse, *, has_tools: bool) -> str:
        """The engine's template for such a chat."""
        metadata = self.vocabulary.metadata
        if use.file is not None:
            return _read_template(use.file)
        if use.text is not None:
            return CHATML_TEMPLATE if use.text == CHATML else use.text
        own = metadata.text("tokenizer.chat_template")
        for_tools = metadata.text("tokenizer.chat_template.tool_use")
        if has_tools and for_tools:
            return for_tools
        if own and own != CHATML:
            return own
        if own is None and metadata.text("tokenizer.ggml.pre") == "tekken":
            raise CannotCount("the file has no chat template, and engines may have one for it")
        return for_tools or CHATML_TEMPLATE


def _read_template(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(_LONGEST_TEMPLATE + 1)
    except (OSError, ValueError):
        raise CannotCount("its chat template cannot be read") from None


class Counter:
    """Answers questions; keeps the last few files."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[str, int, int], _File | CannotCount] = OrderedDict()

    def answer(self, line: bytes) -> Answer:
        try:
            return self._answer(msgspec.json.decode(line, type=Question), len(line))
        except CannotCount as refusal:
            return Answer(refused=str(refusal))
        except TooLong:
            return Answer(refused="its chat template takes too long", costly=True)
        except msgspec.DecodeError:
            return Answer(refused="the request does not have the shape that engines accept")
        # Files of any content and texts of any kind go through other people's libraries. Whatever
        # they raise, the next question may be one that can be answered.
        except Exception as error:  # noqa: BLE001
            return Answer(refused=f"it fails ({type(error).__name__})")

    def _answer(self, question: Question, size: int) -> Answer:
        file = self._file(question.gguf)
        if question.render is not None:
            rendered = _render(file, question.render, question.use, size)
            if not rendered.exact:
                raise CannotCount("how the engine would render it is not certain")
            return Answer(text=rendered.texts[0])
        if question.chat is not None:
            rendered = _render(file, question.chat, question.use, size)
            most = max(map(file.vocabulary.count, rendered.texts))
            return Answer(tokens=most + rendered.extra_tokens, exact=rendered.exact)
        if question.prompts:
            return Answer(tokens=max(map(file.vocabulary.count, question.prompts)), exact=True)
        raise CannotCount("there is nothing to count")

    def _file(self, name: str) -> _File:
        try:
            status = os.stat(name)
        except (OSError, ValueError):
            raise CannotCount("the file does not exist") from None
        key = (name, status.st_size, status.st_mtime_ns)
        if key in self._files:
            self._files.move_to_end(key)
        else:
            self._files[key] = _read(Path(name))
            if len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
        file = self._files[key]
        if isinstance(file, CannotCount):
            raise CannotCount(str(file))
        return file


def _read(path: Path) -> _File | CannotCount:
    """What was refused once is also remembered: finding that out takes as long."""
    try:
        return _File(path)
    except CannotCount as refusal:
        return refusal


def _render(file: _File, chat: Chat, use: TemplateUse, size: int) -> Rendered:
    """`size`: of the question, in bytes."""
    with _template_limits(size):
        rendered = file.render(chat, use)
    if max(map(len, rendered.texts)) > allowance.rendered_characters(size):
        raise CannotCount("its chat template makes too much of a chat")
    return rendered


@contextlib.contextmanager
def _template_limits(size: int) -> Iterator[None]:
    """A template is a program: it can loop, and ask for any amount of memory."""
    try:
        _limit_memory(_held_bytes() + allowance.render_bytes(size))
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGPROF, _give_up)
            signal.setitimer(signal.ITIMER_PROF, allowance.render_s(size))
        yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)
        _limit_memory(None)


def _give_up(number: int, frame: FrameType | None) -> NoReturn:
    raise TooLong


def _limit_memory(most: int | None) -> None:
    """To that many bytes, or to those of the process as a whole. Linux keeps it; on macOS only
    the one who asks sees how much this takes."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has none of it
        import resource

        whole = allowance.most_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (min(whole, most or whole), whole))


def _limit_time() -> None:
    """For one question, should nobody be left who ends this. The kernel does it, whatever an
    operation in C takes that no signal handler gets into."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would have prompts in it
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + _QUESTION_S, hard))


def _held_bytes() -> int:
    """What counts for the limit by now; 0 where there is no saying."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main() -> None:
    _limit_memory(None)
    counter = Counter()
    for line in sys.stdin.buffer:
        _limit_time()
        sys.stdout.buffer.write(msgspec.json.encode(counter.answer(line)) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
