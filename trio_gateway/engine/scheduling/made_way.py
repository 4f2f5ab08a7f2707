"""MadeWay: what was stopped, or is on its way out, for which model's start. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trio_gateway.engine.scheduling.events import VariantKey


class MadeWay:
    """Each variant makes way for one model at a time; a model's are in the order in which they came
    to."""

    def __init__(self) -> None:
        self._for_model: dict[str, dict[VariantKey, None]] = {}
        self._of_variant: dict[VariantKey, str] = {}

    def of(self, model: str) -> Sequence[VariantKey]:
        return [*self._for_model.get(model, ())]

    def add(self, victim: VariantKey, model: str) -> None:
        """It may have made way for another start until now."""
        if (
            self._of_variant.get(victim) == model
            and next(reversed(self._for_model[model])) == victim
        ):
            return
        self.remove(victim)
        self._of_variant[victim] = model
        self._for_model.setdefault(model, {})[victim] = None

    def remove(self, victim: VariantKey) -> None:
        """It does not make way any more."""
        if (model := self._of_variant.pop(victim, None)) is not None:
            del self._for_model[model][victim]

    def take(self, model: str) -> Sequence[VariantKey]:
        """The model is started."""
        victims = self._for_model.pop(model, {})
        for victim in victims:
            del self._of_variant[victim]
        return [*victims]

    def forget(self, models: Iterable[str]) -> None:
        """These are not to be started any more."""
        for model in models:
            self.take(model)
