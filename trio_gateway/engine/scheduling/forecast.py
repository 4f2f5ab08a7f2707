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
        self._reading: dict[str, tuple[float, float]] = {}  # seconds and bytes, of the newest most

    def load_took(self, key: VariantKey, seconds: float) -> None:
        self._load_s[key] = _mean(self._load_s.get(key), seconds)

    def lease_took(self, model: str, seconds: float) -> None:
        self._lease_s[model] = _mean(self._lease_s.get(model), seconds)

    def reading_took(self, model: str, size: int, seconds: float) -> None:
        """A request of that many bytes, for which nothing was generated."""
        took, read = self._reading.get(model, (0.0, 0.0))
        keep = 1 - NEWEST_SHARE
        self._reading[model] = took * keep + seconds, read * keep + max(size, 1)

    def reading_s(self, model: str, size: int) -> float | None:
        """What it takes to have that many bytes read, one request after the other; None before the
        first."""
        if (known := self._reading.get(model)) is None:
            return None
        took, read = known
        return size * took / read

    def load_s(self, facts: VariantFacts) -> float:
        """What a load takes; the configuration's guess before the first."""
        return self._load_s.get(facts.key, facts.load_time_s)

    def lease_s(self, model: str) -> float:
        return self._lease_s.get(model, FIRST_LEASE_S)


def _mean(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + NEWEST_SHARE * (newest - mean)
