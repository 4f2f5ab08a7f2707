"""ModelNames: from what a client writes as `model` to a model, and to the context that it asks for.

A name or an alias; `name:variant` for one of its variants; `name@8192` for a context of at least
that many tokens. Where several models could be meant, the one with the longest name is. Names are
the same with and without `:latest`, which Ollama's clients add to a name without a tag, unless both
are models. Any other name is refused, with similar names listed. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence

import msgspec

from trio_gateway.config.schema import GatewayConfig, ModelConfig

LONGEST_NAME = 200
LATEST = ":latest"
_MOST_DIGITS = 9  # of a context


class ModelNotFound(Exception):
    """No model of that name; the message lists similar names."""


class ContextNotFound(Exception):
    """The model has no context as large as the one that was asked for with its name."""


class Wanted(msgspec.Struct, frozen=True):
    """A model, and the tokens that its context has to hold at least, as asked for with its name."""

    model: ModelConfig
    at_least: int = 0


class Named(msgspec.Struct, frozen=True):
    """What a name is made of. `tokens`: what follows the `@`, whatever that is; None: no `@`."""

    model: ModelConfig
    variant: str | None = None
    tokens: str | None = None


class ModelNames:
    """`contexts_of`: the contexts of a model's variants, in tokens, in the variants' order."""

    def __init__(self, config: GatewayConfig, contexts_of: Callable[[str], Sequence[int]]) -> None:
        self._config, self._contexts_of = config, contexts_of
        self._by_name: dict[str, ModelConfig] = {}  # and by alias
        for model in config.models:
            for name in (model.name, *model.aliases):
                self._by_name.setdefault(name, model)
        self._longest = max(map(len, self._by_name), default=0)
        for name, model in [*self._by_name.items()]:
            bare = name.removesuffix(LATEST)
            if bare and not self.is_name(bare):
                self._by_name[bare] = model

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

    def find_named(self, name: str | None) -> Named:
        """What a request's `model` is made of. None: the only model there is.

        Raises:
            ModelNotFound
        """
        if name is None:
            if len(self._config.models) == 1:
                return Named(self._config.models[0])
            raise ModelNotFound("there are several models; name the one you want in `model`")
        if (model := self._by_name.get(name)) is not None:
            return Named(model)
        for mark, model in self._starts(name):
            if (named := _named(model, name[mark:])) is not None:
                return named
        for mark, model in self._starts(name):
            raise _no_variant(model, name[mark + 1 :])
        return Named(self.find_model(name.removesuffix(LATEST) or name))

    def wanted(self, named: Named) -> Wanted:
        """The context that it asks for.

        Raises:
            ModelNotFound: no context can be asked for in this way; ContextNotFound.
        """
        model, at_least = named.model, 0
        if named.variant is not None:
            at_least = self._context_of(model, named.variant)
        if named.tokens is not None:
            at_least = max(at_least, self._context_from(model, named.tokens))
        return Wanted(model, at_least)

    def _starts(self, name: str) -> Iterator[tuple[int, ModelConfig]]:
        """The models that it begins with, up to a `:` or an `@` at this place, the longest
        first."""
        for mark in range(min(self._longest, len(name) - 1), 0, -1):
            if name[mark] in ":@" and (model := self._by_name.get(name[:mark])) is not None:
                yield mark, model

    def _context_of(self, model: ModelConfig, variant: str) -> int:
        names = _variants(model)
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
            shown = _shortened(tokens)
            raise ModelNotFound(f"{model.name}@{shown}: expected a number of tokens after the @")
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
        found = (_named(model, name[mark:]) for mark, model in self._starts(name))
        named = next(filter(None, found), None)
        return named is not None and "/" not in (named.tokens or "")


def _variants(model: ModelConfig) -> list[str]:
    return [variant.name for variant in model.variants]


def _named(model: ModelConfig, rest: str) -> Named | None:
    """What a model's name with this behind it means: `:variant`, `@tokens`, both, and then perhaps
    `:latest`. None: nothing."""
    if rest.startswith("@"):
        return Named(model, None, rest[1:].removesuffix(LATEST))
    variants = _variants(model)
    for said in (rest[1:], rest[1:].removesuffix(LATEST)):
        label, _, tokens = said.rpartition("@")
        for variant, asked in ((said, None), (label, tokens)):
            if variant in variants:
                return Named(model, variant, asked)
            if variant == LATEST[1:]:
                return Named(model, None, asked)
    return None


def _no_variant(model: ModelConfig, variant: str) -> ModelNotFound:
    listed = ", ".join(_variants(model))
    return ModelNotFound(f'{model.name} has no variant "{_shortened(variant)}"; it has: {listed}')


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
