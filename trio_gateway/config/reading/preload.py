"""Checks the models that `server.preload` names."""

from __future__ import annotations

from collections.abc import Sequence

from trio_gateway.config.choice_schema import ChoiceConfig
from trio_gateway.config.reading import fields
from trio_gateway.config.reading.fields import Mistakes
from trio_gateway.config.schema import ModelConfig


def check_preload(
    mistakes: Mistakes,
    preload: Sequence[str],
    models: Sequence[ModelConfig],
    choices: Sequence[ChoiceConfig] = (),
) -> None:
    """Each begins with the name of a model or a choice, or an alias, as in a request. Behind it,
    `:variant` or `@tokens` may stand, which is looked at when it is loaded."""
    names = {word for model in models for word in (model.name, *model.aliases)}
    names |= {choice.name for choice in choices}
    for wanted in preload:
        is_known = any(
            wanted == name or wanted.startswith((f"{name}:", f"{name}@")) for name in names
        )
        if models and not is_known:
            hint = fields.nearest(wanted, dict.fromkeys(names))
            mistakes.add("server.preload", f"no model {fields.show(wanted)}{hint}")
