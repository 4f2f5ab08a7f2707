"""Calibration: what a model's own counts teach about its chat template, and how far off counts are.

Two sources. Once a run, the model's engine counts five small chats: what remains of them is the
template's overhead, which makes the upper bound tight. And each answer's `usage.prompt_tokens` is
compared with what its request was taken for: what was too low is raised by as much from then on,
and every error is kept for `/gateway/models/{id}`. Pure.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from trio_gateway.models.need.bounds import Overhead

# How many of the newest errors of each source are kept.
KEPT_ERRORS = 1000
# A text may break up the template's token next to it ("\n" and "\n\n"): for the whole, a message.
SLACK_BASE, SLACK_PER_MESSAGE = 8, 4
NEWEST_SHARE = 0.2  # of the newest turn in the running mean
BYTES_PER_TOKEN = 4  # of a message's text, for the size of a turn; no promise rests on it

_USER: dict[str, Any] = {"role": "user", "content": ""}
_TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    },
}
# What is counted to learn a template: one message, a system message before it, three, and tools.
PROBES: tuple[dict[str, Any], ...] = (
    {"messages": [_USER]},
    {"messages": [{"role": "system", "content": ""}, _USER]},
    {"messages": [_USER, {"role": "assistant", "content": ""}, _USER]},
    {"messages": [_USER], "tools": [_TOOL]},
    {"messages": [_USER], "tools": [_TOOL, _TOOL]},
)


class CountSource(enum.Enum):
    """Who said how many tokens a prompt has."""

    BOUND = "bound"
    ENGINE = "engine"
    COMMAND = "tokenization.binary"
    TOKENIZER = "llama-tokenize"
    VOCABULARY = "vocabulary"

    # Each request looks up several of them, and enum's own hash is a Python function.
    __hash__ = object.__hash__


class ErrorSummary(msgspec.Struct, frozen=True):
    """Tokens counted minus tokens that the engine reported: below 0 it was too low."""

    answers: int
    exact_share: float
    least: int
    median: float
    p95: float
    most: int


class Calibration:
    """What is known about one model. One per model and run; changed between awaits only.

    `refuses_tools`: its engines refuse a chat with tools, and so read none.
    """

    def __init__(self, *, refuses_tools: bool = False) -> None:
        self._refuses_tools = refuses_tools
        self.overhead = Overhead(first_tool=0, per_tool=0) if refuses_tools else Overhead()
        self.is_learned = False
        self.engine_has_taught = False
        self.average_turn_tokens = 0.0
        self._errors: dict[CountSource, deque[int]] = {}
        self._shortfalls: dict[CountSource, int] = {}

    @property
    def ignores_tools(self) -> bool:
        """The engine puts nothing of a request's tools into the prompt."""
        return self._refuses_tools or (self.engine_has_taught and self.overhead.ignores_tools)

    def correction(self, source: CountSource) -> int:
        """Tokens to add to what this source says: the most that it was too low by."""
        return self._shortfalls.get(source, 0)

    def learn(self, counts: Sequence[int | None], *, by_engine: bool) -> None:
        """Take in the exact counts of PROBES, in their order; None where a template refuses one."""
        one, with_system, three, tool, two_tools = counts
        if one is None:
            return
        cautious = self.overhead if self._refuses_tools else Overhead()
        per_message, first_tool, per_tool = (
            cautious.per_message, cautious.first_tool, cautious.per_tool,
        )  # fmt: skip
        if three is not None:
            per_message = max(math.ceil((three - one) / 2), 0) + SLACK_PER_MESSAGE
        if tool is not None:
            first_tool = max(tool - one, 0)
            per_tool = max(two_tools - tool, 0) if two_tools is not None else first_tool
        base = max(one, with_system or 0) + SLACK_BASE
        self.overhead = Overhead(base, per_message, first_tool, per_tool)
        self.is_learned, self.engine_has_taught = True, by_engine
        self._shortfalls.pop(CountSource.BOUND, None)  # that was of the overhead before

    def note_answer(
        self, counted: int, source: CountSource, prompt_tokens: int, correction: int = 0
    ) -> None:
        """An answer's `usage`, and what its request was taken for; `correction` of it was added
        to what the source said."""
        error = counted - prompt_tokens
        if (errors := self._errors.get(source)) is None:
            errors = self._errors[source] = deque(maxlen=KEPT_ERRORS)
        errors.append(error)
        shortfall = correction - error
        if shortfall > self._shortfalls.get(source, 0):
            self._shortfalls[source] = shortfall

    def note_turn(self, turn_tokens: int) -> None:
        """What a later turn added to its conversation: its last message and the answer."""
        mean = self.average_turn_tokens
        self.average_turn_tokens = (
            mean + NEWEST_SHARE * (turn_tokens - mean) if mean else float(turn_tokens)
        )

    def errors(self) -> dict[str, ErrorSummary]:
        """By source, of those that an answer was there for."""
        return {source.value: _summary([*errors]) for source, errors in self._errors.items()}


def _summary(errors: list[int]) -> ErrorSummary:
    ordered, count = sorted(errors), len(errors)
    return ErrorSummary(
        answers=count,
        exact_share=round(ordered.count(0) / count, 4),
        least=ordered[0],
        median=(ordered[(count - 1) // 2] + ordered[count // 2]) / 2,
        p95=ordered[math.ceil(0.95 * count) - 1],
        most=ordered[-1],
    )
