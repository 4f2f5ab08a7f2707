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
# Requests that are counted by the same: model, endpoint, outcome, error, how they came by their
# engine, priority, who counted the prompt, whether they were streamed, and tries.
Alike = tuple[
    str, str, Outcome | None, str | None, How | None, Priority, CountSource | None, bool, int
]


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

    def fold(self, alike: Alike, those: Sequence[RequestRecord]) -> None:
        """`those`: requests of the model that are alike."""
        _, endpoint, outcome, error, how, priority, counted_by, is_streamed, tries = alike
        outcome = outcome or Outcome.OK
        self.requests[endpoint, outcome.value] += len(those)
        if error is not None:
            self.errors[error] += len(those)
        self.duration[outcome.value].add(
            [r.ended_at - r.arrived_at for r in those if r.ended_at is not None]
        )
        self.request_bytes += sum([r.request_bytes for r in those])
        self.answer_bytes += sum([r.answer_bytes for r in those])
        if how is None or counted_by is None:
            return  # it got no engine
        self.decisions[how.value] += len(those)
        self.queue_wait[priority.word].add([r.way.queue_s for r in those])
        self.load_wait.add([r.way.load_s for r in those if r.way.load_s])
        self.retries += (tries - 1) * len(those)
        if is_streamed:
            firsts = [(r.first_byte_at, r.arrived_at) for r in those]
            self.first_token.add([first - came for first, came in firsts if first is not None])
        self._fold_tokens(counted_by.value, those)

    def _fold_tokens(self, counted_by: str, those: Sequence[RequestRecord]) -> None:
        """In one pass: a comprehension for each number takes half as long again."""
        prompts = answers = cached = counted = too_low = 0
        wastes: list[float] = []
        speeds: list[float] = []
        prompt_speeds: list[float] = []
        errors: list[float] = []
        for record in those:
            selection, usage = record.selection, record.usage
            if selection is None:
                continue
            if selection.prompt > 0:
                counted += 1
                if context := record.way.context:
                    wastes.append(context / selection.need)
            if usage is None:
                continue
            prompt, answer = usage.prompt_tokens, usage.completion_tokens
            prompts += prompt
            answers += answer
            cached += usage.cached_tokens or 0
            if usage.drafted:
                self.drafted_tokens += usage.drafted
                self.accepted_tokens += usage.accepted or 0
            if answer > 1 and usage.made_ms:
                speeds.append(answer / usage.made_ms * 1000)
            if (speed := usage.speed) is not None:
                prompt_speeds.append(speed)
            if selection.is_plain and prompt:
                error = selection.prompt - prompt
                errors.append(abs(error) / prompt)
                too_low += error < 0
        self.prompt_tokens += prompts
        self.generated_tokens += answers
        self.cached_tokens += cached
        self.speed.add(speeds)
        self.prompt_speed.add(prompt_speeds)
        self.waste.add(wastes)
        if counted:
            self.counted[counted_by] += counted
        if errors:
            self.count_error[counted_by].add(errors)
            self.counted_too_low[counted_by] += too_low


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
        groups: defaultdict[Alike, list[RequestRecord]] = defaultdict(list)
        for r in over:
            if (selection := r.selection) is None:
                model, by = UNKNOWN, None
            else:
                model, by = selection.model.name, selection.source
            groups[
                model, r.endpoint, r.outcome, r.error, r.way.how, r.priority, by,
                r.is_streamed, r.tries,
            ].append(r)  # fmt: skip
        for alike, those in groups.items():
            self._tallies[alike[0]].fold(alike, those)

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
