"""What Prometheus gets of the tallies, and of what can be read off the gateway now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trio_gateway.engine.scheduling.events import Refusal, VariantKey
from trio_gateway.server.metrics.engine_tallies import EngineTallies
from trio_gateway.server.metrics.request_tallies import RequestTallies
from trio_gateway.server.metrics.tallies import Labels, Spread

MODEL = ("model",)
VARIANT = ("model", "variant")


class Counted(NamedTuple):
    """A number that only grows, by its labels."""

    name: str
    help: str
    labels: Sequence[str]
    values: Mapping[Labels, float]


class Spreading(NamedTuple):
    """Values and how often they were in each bucket, by their labels."""

    name: str
    help: str
    labels: Sequence[str]
    spreads: Mapping[Labels, Spread]


class Measured(NamedTuple):
    """A number as it is now, by its labels."""

    name: str
    help: str
    labels: Sequence[str]
    values: Mapping[Labels, float]


def of_requests(all_: RequestTallies) -> Iterator[Counted | Spreading]:
    of, by = all_.by_model, all_.by_more
    yield Counted(
        "requests",
        "Requests that are over.",
        ("model", "endpoint", "outcome"),
        by(lambda m: m.requests),
    )
    yield Counted(
        "request_errors",
        "Errors that clients got.",
        ("model", "code"),
        by(lambda m: m.errors),
    )
    yield Counted(
        "decisions",
        "How requests came by their engine.",
        ("model", "decision"),
        by(lambda m: m.decisions),
    )
    yield Counted(
        "request_retries",
        "Requests that were sent to an engine again.",
        MODEL,
        of(lambda m: m.retries),
    )
    yield Counted("prompt_tokens", "Tokens of prompts.", MODEL, of(lambda m: m.prompt_tokens))
    yield Counted(
        "prompt_tokens_cached",
        "Tokens of prompts that were in an engine's KV cache.",
        MODEL,
        of(lambda m: m.cached_tokens),
    )
    yield Counted("generated_tokens", "Tokens of answers.", MODEL, of(lambda m: m.generated_tokens))
    yield Counted(
        "drafted_tokens",
        "Tokens that a draft model proposed.",
        MODEL,
        of(lambda m: m.drafted_tokens),
    )
    yield Counted(
        "drafted_tokens_accepted",
        "Those of them that were taken.",
        MODEL,
        of(lambda m: m.accepted_tokens),
    )
    yield Counted(
        "request_bytes",
        "Bytes of requests' bodies.",
        MODEL,
        of(lambda m: m.request_bytes),
    )
    yield Counted("answer_bytes", "Bytes of answers' bodies.", MODEL, of(lambda m: m.answer_bytes))
    yield Counted(
        "prompts_counted",
        "Prompts, by who counted their tokens.",
        ("model", "by"),
        by(lambda m: m.counted),
    )
    yield Counted(
        "prompts_counted_too_low",
        "Prompts that had more tokens than were counted.",
        ("model", "by"),
        by(lambda m: m.counted_too_low),
    )
    yield Spreading(
        "prompt_count_error_ratio",
        "How far off counts of prompts were, as a share of the tokens that the engine reported.",
        ("model", "by"),
        by(lambda m: m.count_error),
    )
    yield Spreading(
        "request_duration_seconds",
        "From a request's head to its answer's end.",
        ("model", "outcome"),
        by(lambda m: m.duration),
    )
    yield Spreading(
        "time_to_first_token_seconds",
        "From a request's head to the first byte of its streamed answer.",
        MODEL,
        of(lambda m: m.first_token),
    )
    yield Spreading(
        "queue_wait_seconds",
        "In line for an engine, without the load that it waited for.",
        ("model", "priority"),
        by(lambda m: m.queue_wait),
    )
    yield Spreading(
        "load_wait_seconds",
        "For a load, of the requests that waited for one.",
        MODEL,
        of(lambda m: m.load_wait),
    )
    yield Spreading(
        "generation_tokens_per_second",
        "Speed of answers, as engines say.",
        MODEL,
        of(lambda m: m.speed),
    )
    yield Spreading(
        "prompt_tokens_per_second",
        "Speed at which prompts were read, as engines say.",
        MODEL,
        of(lambda m: m.prompt_speed),
    )
    yield Spreading(
        "context_given_ratio",
        "The context that a request got, divided by what it needed.",
        MODEL,
        of(lambda m: m.waste),
    )


def of_engines(
    all_: EngineTallies, variants: Iterable[VariantKey]
) -> Iterator[Counted | Spreading]:
    """`variants`: that are configured. What alerts ask for is there before it happens: Prometheus
    sees no growth in what was not there."""
    keys: list[Labels] = [(key.model, key.variant) for key in variants]
    whens, whys = ("start", "timeout", "running"), [why.name.lower() for why in Refusal]
    failures: dict[Labels, int] = {(*key, when): 0 for key in keys for when in whens}
    refused: dict[Labels, int] = {(key[0], why): 0 for key in keys for why in whys}
    yield Counted(
        "engine_starts", "Engines that were started.", VARIANT, dict.fromkeys(keys, 0) | all_.starts
    )
    yield Counted(
        "engine_failures", "Engines that did not start, or ended by themselves.",
        (*VARIANT, "when"), failures | all_.failures,
    )  # fmt: skip
    yield Counted(
        "engine_stops", "Engines that were told to end, and why.", (*VARIANT, "reason"), all_.stops
    )
    yield Counted(
        "engine_kills", "Engines that had to be killed, as they did not end.",
        VARIANT, dict.fromkeys(keys, 0) | all_.kills,
    )  # fmt: skip
    yield Counted(
        "engine_drains", "Engines that took nothing new until their requests were done.",
        VARIANT, all_.drains,
    )  # fmt: skip
    yield Counted(
        "engine_drains_called_off", "Engines whose room was no longer needed.",
        VARIANT, all_.resumes,
    )  # fmt: skip
    yield Counted(
        "swaps", "Engines that made way for another model's, or for another size of their own.",
        ("from_model", "to_model", "reason"), all_.swaps,
    )  # fmt: skip
    yield Counted(
        "refused_tickets", "Requests that got no engine.",
        ("model", "reason"), refused | all_.refused,
    )  # fmt: skip
    yield Spreading("engine_load_seconds", "What loads took.", VARIANT, all_.loads)
