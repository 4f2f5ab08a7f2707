"""ModelNames: from what a client writes as `model` to a model, and to the context that it asks for.

A name or an alias; `name:variant` for one of its variants; `name@8192` for a context of at least
that many tokens. Any other name is refused, with similar names listed. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

import msgspec

from trio_gateway.config.schema import GatewayConfig, ModelConfig

LONGEST_NAME = 200
_MOST_DIGITS = 9  # of a context


class ModelNotFound(Exception):
    """No model of that name; the message lists similar names."""


class ContextNotFound(Exception):
    """The model has no context as large as the one that was asked for with its name."""


class Wanted(msgspec.Struct, frozen=True):
    """A model, and the tokens that its context has to hold at least, as asked for with its name."""

    model: ModelConfig
    at_least: int = 0


class ModelNames:
    """`contexts_of`: the contexts of a model's variants, in tokens, in the variants' order."""

    def __init__(self, config: GatewayConfig, contexts_of: Callable[[str], Sequence[int]]) -> None:
        self._config, self._contexts_of = config, contexts_of
        self._by_name: dict[str, ModelConfig] = {}  # and by alias
        for model in config.models:
            for name in (model.name, *model.aliases):
                self._by_name.setdefault(name, model)

    def find_model(self, name: str) -> ModelConfig:
        """The model with this name or alias.

        Raises:
            ModelNotFound
        """
        if (model := self._by_name.get(name)) is not None:
            return model
        if len(name) > LONGEST_NAME:  # looking for near ones would take seconds
            raise ModelNotFound(f'there is no model "{name[:LONGEST_NAME]}…"')
        names = [m.name for m in self._config.models if not m.hidden]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
        hint = f"; did you mean: {', '.join(near)}?" if near else ""
        raise ModelNotFound(f'there is no model "{name}"{hint}')

    def find_wanted(self, name: str | None) -> Wanted:
        """The model of a request, in any of the spellings. None: the only model there is.

        Raises:
            ModelNotFound, ContextNotFound
        """
        if name is None:
            if len(self._config.models) == 1:
                return Wanted(self._config.models[0])
            raise ModelNotFound("there are several models; name the one you want in `model`")
        if (model := self._by_name.get(name)) is not None:
            return Wanted(model)
        for mark, context_named in ((":", self._context_of), ("@", self._context_from)):
            start, _, what = name.rpartition(mark)
            if (model := self._by_name.get(start)) is not None:
                if len(what) > LONGEST_NAME:
                    what = f"{what[:LONGEST_NAME]}…"
                return Wanted(model, context_named(model, what))
        return Wanted(self.find_model(name))

    def _context_of(self, model: ModelConfig, variant: str) -> int:
        names = [v.name for v in model.variants]
        if variant not in names:
            listed = ", ".join(names)
            raise ModelNotFound(f'{model.name} has no variant "{variant}"; it has: {listed}')
        contexts = self._contexts_of(model.name)
        context = contexts[names.index(variant)]
        first = names[contexts.index(context)]
        if first != variant:
            raise ModelNotFound(
                f'{model.name}:{variant} cannot be asked for: "{first}" has the same context and '
                "is always taken first; make it a model of its own"
            )
        return context

    def _context_from(self, model: ModelConfig, tokens: str) -> int:
        if not (tokens.isdecimal() and tokens.isascii() and len(tokens) <= _MOST_DIGITS):
            raise ModelNotFound(f"{model.name}@{tokens}: expected a number of tokens after the @")
        largest = max(self._contexts_of(model.name))
        if int(tokens) > largest:
            raise ContextNotFound(
                f"{model.name} has no context of {tokens} tokens; its largest has {largest}"
            )
        return int(tokens)

    def is_name(self, name: str) -> bool:
        """Whether it is a model's name, as the start of a path; the tokens asked for are not
        looked at."""
        if name in self._by_name:
            return True
        start, _, label = name.rpartition(":")
        if (model := self._by_name.get(start)) is not None:
            return label in [variant.name for variant in model.variants]
        start, _, tokens = name.rpartition("@")
        return start in self._by_name and "/" not in tokens
