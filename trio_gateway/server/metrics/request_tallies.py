"""RequestTallies: what all requests until now add up to. Pure.

A request is folded in when it is over. That is on every request's way, so what its model has is
looked up once, and nothing is made of it that is not counted: 2 to 3 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from trio_gateway.server.metrics.tallies import Labels, Spread
from trio_gateway.server.records.request_record import Outcome, RequestRecord

# LLMs take from a blink to ten minutes.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKENS_PER_SECOND = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2500, 5000)
TIMES = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SHARES = (0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)

UNKNOWN = ""  # a model that nobody has: its name is a client's invention
T = TypeVar("T")


class ModelTally:
    """Of one model. Seconds, tokens and bytes; dicts are by what their comments say."""

    __slots__ = (
        "accepted_tokens",
        "answer_bytes",
        "cached_tokens",
        "count_error",
        "counted",
        "counted_too_low",
        "decisions",
        "drafted_tokens",
        "duration",
        "errors",
        "first_token",
        "generated_tokens",
        "load_wait",
        "prompt_speed",
        "prompt_tokens",
        "queue_wait",
        "request_bytes",
        "requests",
        "retries",
        "speed",
        "waste",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests: dict[Labels, int] = {}  # endpoint, outcome
        self.errors: dict[str, int] = {}  # code
        self.decisions: dict[str, int] = {}  # how it came by its engine
        self.counted: dict[str, int] = {}  # who counted
        self.counted_too_low: dict[str, int] = {}  # who counted
        self.count_error: dict[str, Spread] = {}  # who counted; a share of the prompt's tokens
        self.duration: dict[str, Spread] = {}  # outcome
        self.queue_wait: dict[str, Spread] = {}  # priority
        self.retries = self.request_bytes = self.answer_bytes = 0
        self.prompt_tokens = self.cached_tokens = self.generated_tokens = 0
        self.drafted_tokens = self.accepted_tokens = 0
        self.first_token = Spread(SECONDS)  # of streams
        self.load_wait = Spread(SECONDS)  # of those that waited for a load
        self.speed, self.prompt_speed = Spread(TOKENS_PER_SECOND), Spread(TOKENS_PER_SECOND)
        self.waste = Spread(TIMES)  # the context that it got for each token of its need

    def fold(self, record: RequestRecord) -> None:
        outcome: str = (record.outcome or Outcome.OK)._value_  # `value` takes 0.3 µs
        labels = (record.endpoint, outcome)
        self.requests[labels] = self.requests.get(labels, 0) + 1
        self.request_bytes += record.request_bytes
        self.answer_bytes += record.answer_bytes
        if record.error is not None:
            self.errors[record.error] = self.errors.get(record.error, 0) + 1
        if record.ended_at is not None:
            _spread(self.duration, outcome, SECONDS).add(record.ended_at - record.arrived_at)
        if (selection := record.selection) is None or record.how is None:
            return
        how = record.how._value_
        self.decisions[how] = self.decisions.get(how, 0) + 1
        _spread(self.queue_wait, record.priority.word, SECONDS).add(record.queue_s)
        if record.load_s:
            self.load_wait.add(record.load_s)
        if record.tries > 1:
            self.retries += record.tries - 1
        if record.is_streamed and record.first_byte_at is not None:
            self.first_token.add(record.first_byte_at - record.arrived_at)
        source = selection.source._value_
        if selection.prompt > 0:
            self.counted[source] = self.counted.get(source, 0) + 1
            if record.context:
                self.waste.add(record.context / selection.need)
        if (usage := record.usage) is None:
            return
        self.prompt_tokens += usage.prompt_tokens
        self.generated_tokens += usage.completion_tokens
        if usage.cached_tokens:
            self.cached_tokens += usage.cached_tokens
        if usage.drafted:
            self.drafted_tokens += usage.drafted
            self.accepted_tokens += usage.accepted or 0
        if usage.made_ms and usage.completion_tokens > 1:
            self.speed.add(usage.completion_tokens / usage.made_ms * 1000)
        if (speed := usage.speed) is not None:
            self.prompt_speed.add(speed)
        if selection.is_plain and usage.prompt_tokens:
            error = selection.prompt - usage.prompt_tokens
            _spread(self.count_error, source, SHARES).add(abs(error) / usage.prompt_tokens)
            if error < 0:
                self.counted_too_low[source] = self.counted_too_low.get(source, 0) + 1


def _spread(spreads: dict[str, Spread], label: str, limits: tuple[float, ...]) -> Spread:
    if (spread := spreads.get(label)) is None:
        spread = spreads[label] = Spread(limits)
    return spread


class RequestTallies:
    """Of all models, each under its name, and what belongs to none under UNKNOWN."""

    def __init__(self) -> None:
        self._models: dict[str, ModelTally] = {}

    def fold(self, record: RequestRecord) -> None:
        """A request that is over."""
        selection = record.selection
        name = UNKNOWN if selection is None else selection.model.name
        if (tally := self._models.get(name)) is None:
            tally = self._models[name] = ModelTally()
        tally.fold(record)

    def by_model(self, number: Callable[[ModelTally], T]) -> dict[Labels, T]:
        """One number, or Spread, of each model."""
        return {(name,): number(tally) for name, tally in self._models.items()}

    def by_more(
        self, numbers: Callable[[ModelTally], Mapping[str, T] | Mapping[Labels, T]]
    ) -> dict[Labels, T]:
        """By the model, and what else is said."""
        return {
            (name, *((more,) if isinstance(more, str) else more)): number
            for name, tally in self._models.items()
            for more, number in numbers(tally).items()
        }
