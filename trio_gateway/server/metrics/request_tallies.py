"""RequestTallies: what all requests until now add up to. Pure.

When a request is over, it is noted, and many are folded in at once: by the batch, or when somebody
asks. That takes 1.2 µs a request. One by one they took 2.3, and three times that where other code
had run in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from trio_gateway.config.priority import Priority
from trio_gateway.engine.scheduling.events import How
from trio_gateway.models.need.calibration import CountSource
from trio_gateway.models.selection import Selection
from trio_gateway.server.metrics.tallies import Counts, Labels, Spread, Spreads
from trio_gateway.server.records.request_record import Outcome, RequestRecord

# LLMs take from a blink to ten minutes.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKENS_PER_SECOND = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2500, 5000)
TIMES = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SHARES = (0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)

BATCH = 256  # which takes half a millisecond
UNKNOWN = ""  # a model that nobody has: its name is a client's invention
T = TypeVar("T")
_Granted = tuple[RequestRecord, Selection]


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
        self.requests: Counts[Labels] = defaultdict(int)  # endpoint, outcome
        self.errors: Counts[str] = defaultdict(int)  # code
        self.decisions: Counts[str] = defaultdict(int)  # how it came by its engine
        self.counted: Counts[str] = defaultdict(int)  # who counted
        self.counted_too_low: Counts[str] = defaultdict(int)  # who counted
        self.count_error = Spreads[str](SHARES)  # who counted; a share of the prompt's tokens
        self.duration = Spreads[str](SECONDS)  # outcome
        self.queue_wait = Spreads[str](SECONDS)  # priority
        self.retries = self.request_bytes = self.answer_bytes = 0
        self.prompt_tokens = self.cached_tokens = self.generated_tokens = 0
        self.drafted_tokens = self.accepted_tokens = 0
        self.first_token = Spread(SECONDS)  # of streams
        self.load_wait = Spread(SECONDS)  # of those that waited for a load
        self.speed, self.prompt_speed = Spread(TOKENS_PER_SECOND), Spread(TOKENS_PER_SECOND)
        self.waste = Spread(TIMES)  # the context that it got for each token of its need

    def fold(self, records: Sequence[RequestRecord]) -> None:
        """Group by group: in each, what counts is counted by is the same."""
        groups: defaultdict[tuple[str, Outcome, str | None], list[RequestRecord]]
        groups = defaultdict(list)
        for record in records:
            groups[record.endpoint, record.outcome or Outcome.OK, record.error].append(record)
        for (endpoint, outcome, error), those in groups.items():
            self.requests[endpoint, outcome.value] += len(those)
            if error is not None:
                self.errors[error] += len(those)
            self.duration[outcome.value].add(
                [r.ended_at - r.arrived_at for r in those if r.ended_at is not None]
            )
            self.request_bytes += sum([r.request_bytes for r in those])
            self.answer_bytes += sum([r.answer_bytes for r in those])
        self._fold_granted(records)

    def _fold_granted(self, records: Sequence[RequestRecord]) -> None:
        groups: defaultdict[tuple[How, Priority, CountSource], list[_Granted]] = defaultdict(list)
        for record in records:
            if (selection := record.selection) is not None and record.how is not None:
                group = groups[record.how, record.priority, selection.source]
                group.append((record, selection))
        for (how, priority, source), those in groups.items():
            self.decisions[how.value] += len(those)
            self.queue_wait[priority.word].add([r.queue_s for r, _ in those])
            self.load_wait.add([r.load_s for r, _ in those if r.load_s])
            self.retries += sum([r.tries - 1 for r, _ in those if r.tries > 1])
            self.first_token.add(
                [
                    r.first_byte_at - r.arrived_at
                    for r, _ in those
                    if r.is_streamed and r.first_byte_at is not None
                ]
            )
            counted = [(r, selection) for r, selection in those if selection.prompt > 0]
            if counted:
                self.counted[source.value] += len(counted)
            self.waste.add([r.context / selection.need for r, selection in counted if r.context])
            self._fold_used(source.value, those)

    def _fold_used(self, source: str, those: Sequence[_Granted]) -> None:
        used = [(selection, r.usage) for r, selection in those if r.usage is not None]
        usages = [usage for _, usage in used]
        self.prompt_tokens += sum([usage.prompt_tokens for usage in usages])
        self.generated_tokens += sum([usage.completion_tokens for usage in usages])
        self.cached_tokens += sum([usage.cached_tokens or 0 for usage in usages])
        for usage in usages:
            if usage.drafted:
                self.drafted_tokens += usage.drafted
                self.accepted_tokens += usage.accepted or 0
        self.speed.add(
            [
                usage.completion_tokens / usage.made_ms * 1000
                for usage in usages
                if usage.made_ms and usage.completion_tokens > 1
            ]
        )
        self.prompt_speed.add([speed for u in usages if (speed := u.speed) is not None])
        plain = [
            (selection.prompt - usage.prompt_tokens, usage.prompt_tokens)
            for selection, usage in used
            if selection.is_plain and usage.prompt_tokens
        ]
        if plain:
            self.count_error[source].add([abs(error) / tokens for error, tokens in plain])
            self.counted_too_low[source] += sum([error < 0 for error, _ in plain])


class RequestTallies:
    """Of all models, each under its name, and what belongs to none under UNKNOWN."""

    def __init__(self) -> None:
        self._tallies: defaultdict[str, ModelTally] = defaultdict(ModelTally)
        self._over: list[RequestRecord] = []  # and not folded in yet

    def note(self, record: RequestRecord) -> None:
        """A request that is over."""
        self._over.append(record)
        if len(self._over) >= BATCH:
            self._fold()

    def _fold(self) -> None:
        over, self._over = self._over, []
        models: defaultdict[str, list[RequestRecord]] = defaultdict(list)
        for record in over:
            selection = record.selection
            models[UNKNOWN if selection is None else selection.model.name].append(record)
        for name, records in models.items():
            self._tallies[name].fold(records)

    @property
    def _models(self) -> dict[str, ModelTally]:
        """Of all that is noted."""
        self._fold()
        return self._tallies

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
