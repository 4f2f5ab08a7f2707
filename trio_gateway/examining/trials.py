"""Findings of trials: what engines did, held against what the configuration says. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trio_gateway.config.schema import GatewayConfig, VariantConfig
from trio_gateway.config.sizes import format_over
from trio_gateway.examining.finding import Finding, error, in_order, note, warning
from trio_gateway.examining.trial import Trial


def on_trials(config: GatewayConfig, trials: Sequence[Trial]) -> list[Finding]:
    variants = {(m.name, v.name): v for m in config.models for v in m.variants}
    found = [f for t in trials for f in _on_trial(t, variants[t.key.model, t.key.variant])]
    return in_order(found)


def _on_trial(trial: Trial, variant: VariantConfig) -> Iterator[Finding]:
    key = trial.key
    if trial.failure:
        yield error(f"{key} did not start: {trial.failure}")
        return
    if trial.asked.works is False:
        yield error(f"{key} starts, and does not answer: {trial.asked.said}")
    if trial.context is not None and trial.context < variant.holds:
        yield warning(
            f"{key}: one request gets {trial.context} tokens, and not the {variant.holds} that "
            "the configuration says",
            "lower its context, or raise what its engine is given (-c)",
        )
    if variant.memory_bytes is not None and (trial.memory_bytes or 0) > variant.memory_bytes:
        took, declared = format_over(trial.memory_bytes or 0, variant.memory_bytes)
        yield warning(f"{key}: it took {took}, and declares {declared}", "raise its `memory`")
    for what, tried in (
        ("a restored cache does not help", trial.restore),
        ("tools do not work", trial.tools),
        ("images do not work", trial.images),
    ):
        if tried.works is False:
            yield note(f"{key}: {what}: {tried.said}")
