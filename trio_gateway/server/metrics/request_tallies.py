"""RequestTallies: what all requests until now add up to. Pure.

A request is folded in when it is over, in about 3 µs.
"""

from __future__ import annotations

from trio_gateway.server.metrics.tallies import Spreads, counts
from trio_gateway.server.records.request_record import Outcome, RequestRecord

# LLMs take from a blink to ten minutes.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKENS_PER_SECOND = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2500, 5000)
TIMES = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SHARES = (0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)

UNKNOWN = ""  # a model that nobody has: its name is a client's invention


class RequestTallies:
    """By model, and what else is said. Seconds, tokens and bytes."""

    def __init__(self) -> None:
        self.requests = counts()  # model, endpoint, outcome
        self.errors = counts()  # model, code
        self.decisions = counts()  # model, how it came by its engine
        self.retries = counts()  # model
        self.prompt_tokens = counts()  # model
        self.cached_tokens = counts()
        self.generated_tokens = counts()
        self.drafted_tokens = counts()
        self.accepted_tokens = counts()
        self.request_bytes = counts()
        self.answer_bytes = counts()
        self.counted = counts()  # model, who counted
        self.counted_too_low = counts()  # model, who counted
        self.count_error = Spreads(SHARES)  # model, who counted; of the prompt's tokens
        self.duration = Spreads(SECONDS)  # model, outcome
        self.first_token = Spreads(SECONDS)  # model; of streams
        self.queue_wait = Spreads(SECONDS)  # model, priority
        self.load_wait = Spreads(SECONDS)  # model; of those that waited for a load
        self.speed = Spreads(TOKENS_PER_SECOND)  # model
        self.prompt_speed = Spreads(TOKENS_PER_SECOND)  # model
        self.waste = Spreads(TIMES)  # model; the context that it got for each token of its need

    def fold(self, record: RequestRecord) -> None:
        """A request that is over."""
        selection = record.selection
        model = UNKNOWN if selection is None else selection.model.name
        outcome = record.outcome or Outcome.OK
        of_model = (model,)
        self.requests[model, record.endpoint, outcome.value] += 1
        self.request_bytes[of_model] += record.request_bytes
        self.answer_bytes[of_model] += record.answer_bytes
        if record.error is not None:
            self.errors[model, record.error] += 1
        if record.ended_at is not None:
            self.duration[model, outcome.value].add(record.ended_at - record.arrived_at)
        if record.how is None or selection is None:
            return
        self.decisions[model, record.how.value] += 1
        self.queue_wait[model, record.priority.word].add(record.queue_s)
        if record.load_s:
            self.load_wait[of_model].add(record.load_s)
        if record.tries > 1:
            self.retries[of_model] += record.tries - 1
        if record.is_streamed and record.first_byte_at is not None:
            self.first_token[of_model].add(record.first_byte_at - record.arrived_at)
        if selection.prompt > 0:
            self.counted[model, selection.source.value] += 1
            if record.context:
                self.waste[of_model].add(record.context / selection.need)
        if record.usage is not None:
            self._fold_usage(record, model)

    def _fold_usage(self, record: RequestRecord, model: str) -> None:
        usage, selection, of_model = record.usage, record.selection, (model,)
        assert usage is not None
        assert selection is not None
        self.prompt_tokens[of_model] += usage.prompt_tokens
        self.generated_tokens[of_model] += usage.completion_tokens
        if usage.cached_tokens:
            self.cached_tokens[of_model] += usage.cached_tokens
        if usage.drafted:
            self.drafted_tokens[of_model] += usage.drafted
            self.accepted_tokens[of_model] += usage.accepted or 0
        if usage.made_ms and usage.completion_tokens > 1:
            self.speed[of_model].add(usage.completion_tokens / usage.made_ms * 1000)
        if (speed := usage.speed) is not None:
            self.prompt_speed[of_model].add(speed)
        if selection.is_plain and usage.prompt_tokens:
            source = (model, selection.source.value)
            error = selection.prompt - usage.prompt_tokens
            self.count_error[source].add(abs(error) / usage.prompt_tokens)
            if error < 0:
                self.counted_too_low[source] += 1
