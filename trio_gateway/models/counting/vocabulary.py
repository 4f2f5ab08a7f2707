"""Vocabulary: counts prompt tokens while no engine of the model runs, in a process of its own.

What a file says is not trusted: a template can loop for ever or take all memory, and a vocabulary
can be broken in ways that end a process. So `vocabulary_worker.py` does it, and is killed past a
time or an amount of memory. Its memory is watched from here, which works on each system and
whatever it does; on Linux its own limits mostly come first.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil
import trio

from trio_gateway.engine.process.helper import end_helper, start_helper
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.environment import inherited
from trio_gateway.models.counting import allowance
from trio_gateway.models.counting.patience import BARRED_S, Patience
from trio_gateway.models.counting.template_use import OWN_TEMPLATE, TemplateUse
from trio_gateway.tasks import beside

log = logging.getLogger(__name__)

QUESTION_S = 10.0  # waiting for those before it, starting the helper and loading the file included
IDLE_S = 300.0
_WATCH_S = 0.05
_SLIM_BYTES = 1 << 30  # a helper that holds more does not wait for the next question
_SMALL_QUESTION = 1 << 20  # bytes; that a larger one takes long need not be the file's fault
_QUESTION_LETTERS = 100_000  # of several prompts in one question
_SHORT_BYTES = 200_000
_LONGEST_ANSWER = 64 << 20  # bytes; a rendered prompt is about as long as its request
# -P: no module comes from the folder that the gateway happens to run in.
_COMMAND = (sys.executable, "-P", "-m", "trio_gateway.models.counting.vocabulary_worker")


class VocabularyCount(msgspec.Struct, frozen=True):
    """Not `exact`: never too few, but perhaps too many."""

    tokens: int
    exact: bool


class _Answer(msgspec.Struct, frozen=True):
    tokens: int | None = None
    exact: bool = False
    text: str | None = None
    refused: str | None = None
    costly: bool = False


class _Question:
    """Asked by one task, answered once by the task of `run`."""

    def __init__(self, gguf: Path, line: bytes, deadline: float) -> None:
        self.gguf, self.line, self.deadline = gguf, line, deadline
        self.answer: _Answer | None = None
        self.is_over = trio.Event()


class _HelperFailed(Exception):
    """It did not answer; the message says why."""


class Vocabulary:
    """Counts tokens with a file's own vocabulary and chat template.

    `run` must be running: it owns the helper process. Without it nothing is counted. The helper
    is started by the first question, and ended when there was none for `IDLE_S` seconds. `secrets`:
    variables that it does not inherit.
    """

    def __init__(self, reaper: Reaper | None = None, secrets: Collection[str] = ()) -> None:
        self._reaper, self._secrets = reaper, secrets
        self._questions: trio.MemorySendChannel[_Question] | None = None
        self._refusals: dict[Path, str] = {}
        # A long question takes a second or two. One of them at a time stands in the line, so that
        # a short one waits for no more than one.
        self._long_turn = trio.Lock()

    def why_not(self, gguf: Path) -> str | None:
        """Why the last question about this file was refused; None: it was not."""
        return self._refusals.get(gguf)

    async def count_chat(
        self, gguf: Path, chat: bytes, use: TemplateUse = OWN_TEMPLATE
    ) -> VocabularyCount | None:
        """The prompt tokens of a request's body; None: cannot say."""
        return _count(await self._ask(gguf, chat=msgspec.Raw(chat), use=use))

    async def count_prompts(self, gguf: Path, prompts: Sequence[str]) -> VocabularyCount | None:
        """The tokens of the largest of the prompts; None: cannot say.

        Many of them are several questions: those of other requests have their turn in between.
        """
        largest: VocabularyCount | None = None
        for part in _parts(prompts):
            counted = _count(await self._ask(gguf, prompts=part))
            if counted is None:
                return None
            if largest is None or counted.tokens > largest.tokens:
                largest = counted
        return largest

    async def render(self, gguf: Path, chat: bytes, use: TemplateUse = OWN_TEMPLATE) -> str | None:
        """The prompt that the engine makes of a request's body; None: not known for certain."""
        answer = await self._ask(gguf, render=msgspec.Raw(chat), use=use)
        return None if answer is None else answer.text

    async def _ask(
        self, gguf: Path, **asked: msgspec.Raw | list[str] | TemplateUse
    ) -> _Answer | None:
        if self._questions is None:
            return None
        try:
            line = msgspec.json.encode({"gguf": os.fspath(gguf), **asked})
        except UnicodeEncodeError:  # half a character, in the path or in a prompt
            return None
        # In JSON, a line's end comes only between the words, where a blank will do as well.
        line = line.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"
        question = _Question(gguf, line, trio.current_time() + QUESTION_S)
        try:
            if len(line) <= _SHORT_BYTES:
                return await self._answered(self._questions, question)
            with trio.fail_at(question.deadline):
                await self._long_turn.acquire()
            try:
                return await self._answered(self._questions, question)
            finally:
                self._long_turn.release()
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            return None  # those before it took all the time, or `run` ended

    async def _answered(
        self, questions: trio.MemorySendChannel[_Question], question: _Question
    ) -> _Answer | None:
        with trio.fail_at(question.deadline):
            await questions.send(question)
        await question.is_over.wait()  # `run` keeps to the deadline
        answer = question.answer
        self._refusals.pop(question.gguf, None)
        if answer is not None and answer.refused is not None:
            self._refusals[question.gguf] = answer.refused
            return None
        return answer

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer questions, one at a time, until cancelled."""
        # Without room in between, a question that is cancelled while it waits was never asked.
        send, receive = trio.open_memory_channel[_Question](0)
        owner = _Owner(self._reaper, self._secrets)
        try:
            self._questions = send
            with send, receive:
                task_status.started()
                while True:
                    wait_s = IDLE_S if owner.is_running else math.inf
                    question = None
                    with trio.move_on_after(wait_s):
                        question = await receive.receive()
                    if question is None:
                        await owner.end()
                        continue
                    try:
                        question.answer = await owner.answer(question)
                    finally:
                        question.is_over.set()
        finally:
            self._questions = None
            await owner.end()


class _Owner:
    """The helper process, for the one task that owns it."""

    def __init__(self, reaper: Reaper | None, secrets: Collection[str]) -> None:
        self._reaper, self._secrets = reaper, secrets
        self._process: trio.Process | None = None
        self._logged: set[tuple[Path, str]] = set()
        self._patience = Patience()

    @property
    def is_running(self) -> bool:
        return self._process is not None

    async def answer(self, question: _Question) -> _Answer | None:
        """The helper's answer. Whatever keeps it from giving one costs it its life: so the next
        question never gets the answer of this one."""
        if self._patience.is_lost(question.gguf, trio.current_time()):
            why = f"it takes too much; left alone for {BARRED_S:g} s each time"
            self._log(question.gguf, why, logging.WARNING)
            return None
        is_whole = False
        # What waited for long has time left all the same: it is not to blame for those before it.
        deadline = max(question.deadline, trio.current_time() + QUESTION_S / 2)
        try:
            with trio.fail_at(deadline):
                process = await self._helper()
                answer = await _watched_exchange(process, question)
            is_whole = True
        except trio.TooSlowError:
            self._failed(question, f"no answer within {QUESTION_S:g} s")
            return None
        except (_HelperFailed, OSError, msgspec.DecodeError) as error:
            self._failed(question, f"the helper failed: {error}")
            return None
        finally:
            if not is_whole:
                await self.end()
        if _held_bytes(process) > _SLIM_BYTES:
            await self.end()
        if answer.costly:
            self._patience.note(question.gguf, trio.current_time())
        if answer.refused is not None:
            self._log(question.gguf, answer.refused, logging.INFO)
        return answer

    def _failed(self, question: _Question, why: str) -> None:
        self._log(question.gguf, why, logging.WARNING)
        if len(question.line) < _SMALL_QUESTION:
            self._patience.note(question.gguf, trio.current_time())

    def _log(self, gguf: Path, why: str, level: int) -> None:
        """Each reason once a file. It has nothing of a prompt in it."""
        if (gguf, why) not in self._logged:
            self._logged.add((gguf, why))
            log.log(level, "%s: tokens cannot be counted without an engine: %s", gguf.name, why)

    async def _helper(self) -> trio.Process:
        if self._process is not None and self._process.poll() is not None:
            await self.end()  # killed by someone between two questions
        if self._process is None:
            env = {**inherited(self._secrets), "TOKENIZERS_PARALLELISM": "false"}
            self._process = await start_helper(_COMMAND, env, self._reaper)
            log.debug("the vocabulary helper is pid %d", self._process.pid)
        return self._process

    async def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await end_helper(process, self._reaper)


async def _watched_exchange(process: trio.Process, question: _Question) -> _Answer:
    """The answer; raises _HelperFailed if it takes more memory than such a question may."""
    size = await trio.to_thread.run_sync(_size_of, question.gguf, abandon_on_cancel=True)
    most = _held_bytes(process) + allowance.growth_bytes(size, len(question.line))
    most = min(most, allowance.most_bytes())

    async def watch() -> None:
        while True:  # no event tells of memory that is taken
            await trio.sleep(_WATCH_S)
            if _held_bytes(process) > most:
                raise _HelperFailed(f"it took more than {most >> 20} MiB of memory")

    async with beside(watch):
        line = await _exchange(process, question.line)
    return msgspec.json.decode(line, type=_Answer)


def _size_of(gguf: Path) -> int:
    try:
        return gguf.stat().st_size
    except (OSError, ValueError):
        return 0


def _held_bytes(process: trio.Process) -> int:
    try:
        return int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:  # it is gone
        return 0


async def _exchange(process: trio.Process, line: bytes) -> bytes:
    """One line to the helper, and one from it: it writes nothing before it has read all."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdin.send_all(line)
    except trio.BrokenResourceError:
        raise _HelperFailed("it ended") from None
    answer = bytearray()
    while not answer.endswith(b"\n"):
        piece = await process.stdout.receive_some()
        if not piece:
            raise _HelperFailed("it ended")
        answer += piece
        if len(answer) > _LONGEST_ANSWER:
            raise _HelperFailed("its answer is cut off")
    return bytes(answer)


def _parts(prompts: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    letters = 0
    for prompt in prompts:
        if part and letters + len(prompt) > _QUESTION_LETTERS:
            yield part
            part, letters = [], 0
        part.append(prompt)
        letters += len(prompt)
    if part:
        yield part


def _count(answer: _Answer | None) -> VocabularyCount | None:
    if answer is None or answer.tokens is None:
        return None
    return VocabularyCount(answer.tokens, answer.exact)
