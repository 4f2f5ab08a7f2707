"""Forecast: what loads and requests took so far, as running means."""

from __future__ import annotations

from trio_gateway.engine.scheduling.events import VariantFacts, VariantKey

NEWEST_SHARE = 0.3  # of the newest measurement in the running mean
FIRST_LEASE_S = 10.0  # a guess, until a request of the model is done


class Forecast:
    """Running means, in seconds."""

    def __init__(self) -> None:
        self._load_s: dict[VariantKey, float] = {}
        self._lease_s: dict[str, float] = {}

    def load_took(self, key: VariantKey, seconds: float) -> None:
        self._load_s[key] = _mean(self._load_s.get(key), seconds)

    def lease_took(self, model: str, seconds: float) -> None:
        self._lease_s[model] = _mean(self._lease_s.get(model), seconds)

    def load_s(self, facts: VariantFacts) -> float:
        """What a load takes; the configuration's guess before the first."""
        return self._load_s.get(facts.key, facts.load_time_s)

    def lease_s(self, model: str) -> float:
        return self._lease_s.get(model, FIRST_LEASE_S)


def _mean(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + NEWEST_SHARE * (newest - mean)
