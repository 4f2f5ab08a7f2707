"""ModelNames: from what a client writes as `model` to a model, and to the context that it asks for.

A name or an alias; `name:variant` for one of its variants; `name@8192` for a context of at least
that many tokens. Where several models could be meant, the one with the longest name is. Names are
the same with and without `:latest`, which Ollama's clients add to a name without a tag, unless both
are models. The name of a choice means one of several models; behind it, a context may stand as
well. Any other name is refused, with similar names listed. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig, Strategy
from trio_gateway.config.schema import GatewayConfig, ModelConfig

LONGEST_NAME = 200
LATEST = ":latest"
_MOST_DIGITS = 9  # of a context


class ModelNotFound(Exception):
    """No model of that name; the message lists similar names."""


class ContextNotFound(Exception):
    """The model has no context as large as the one that was asked for with its name."""


class Chosen(msgspec.Struct, frozen=True):
    """That one of several models was taken. `name`: of the choice; `why`: this one, as the end of a
    sentence about it."""

    name: str
    strategy: Strategy
    why: str

    def __str__(self) -> str:
        return f"{self.name}; {self.strategy.value}; {self.why}"


class Wanted(msgspec.Struct, frozen=True):
    """A model, and the tokens that its context has to hold at least, as asked for with its name.
    `chosen`: of several, and why."""

    model: ModelConfig
    at_least: int = 0
    chosen: Chosen | None = None


class Named(msgspec.Struct, frozen=True):
    """What a name is made of. `tokens`: what follows the `@`, whatever that is; None: no `@`.
    `choice`: it means one of several models, of which `model` is the first."""

    model: ModelConfig
    variant: str | None = None
    tokens: str | None = None
    choice: ChoiceConfig | None = None


class ModelNames:
    """`contexts_of`: the contexts of a model's variants, in tokens, in the variants' order."""

    def __init__(self, config: GatewayConfig, contexts_of: Callable[[str], Sequence[int]]) -> None:
        self._config, self._contexts_of = config, contexts_of
        self._choices: dict[str, ChoiceConfig] = {}
        self._by_name: dict[str, ModelConfig] = {}  # and by alias
        for model in config.models:
            for name in (model.name, *model.aliases):
                self._by_name.setdefault(name, model)
        self._longest = max(map(len, self._by_name), default=0)
        for name, model in [*self._by_name.items()]:
            bare = name.removesuffix(LATEST)
            if bare and not self.is_name(bare):
                self._by_name[bare] = model
        for choice in config.choices:
            bare = choice.name.removesuffix(LATEST) or choice.name
            self._choices |= {choice.name: choice, bare: choice, f"{bare}{LATEST}": choice}
        self._longest = max(self._longest, *map(len, ("", *self._choices)))
        self._plain = {name: Wanted(model) for name, model in self._by_name.items()}

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
        names += [choice.name for choice in self._config.choices if not choice.hidden]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
        hint = f"; did you mean: {', '.join(near)}?" if near else ""
        raise ModelNotFound(f'there is no model "{name}"{hint}')

    def plain(self, name: str | None) -> Wanted | None:
        """What the name of a model or an alias means, as most are; None: it is no such name."""
        return None if name is None else self._plain.get(name)

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
        if self._choices and (found := self._named_choice(name)) is not None:
            return found
        for mark, model in self._starts(name):
            if (named := _named(model, name[mark:])) is not None:
                return named
        for mark, model in self._starts(name):
            raise _no_variant(model, name[mark + 1 :])
        return Named(self.find_model(name.removesuffix(LATEST) or name))

    def members(self, choice: ChoiceConfig) -> list[Named]:
        """In the order of the configuration."""
        return [self.find_named(member.name) for member in choice.members]

    def wanted_of(self, member: Named, tokens: str | None) -> Wanted:
        """Of a choice's member, where the choice was asked for with `tokens`.

        Raises:
            ModelNotFound, ContextNotFound: as `wanted`.
        """
        wanted = self.wanted(member)
        if tokens is None:
            return wanted
        at_least = max(wanted.at_least, self._context_from(member.model, tokens))
        return msgspec.structs.replace(wanted, at_least=at_least)

    def _named_choice(self, name: str) -> Named | None:
        """Raises ModelNotFound: something else than a context is behind the name of a choice."""
        if (choice := self._choices.get(name)) is not None:
            return self._of_choice(choice, None)
        for mark in range(min(self._longest, len(name) - 1), 0, -1):
            if name[mark] not in ":@":
                continue
            if name[:mark] in self._by_name:  # the longer name counts
                return None
            if (choice := self._choices.get(name[:mark])) is not None:
                if name[mark] == "@":
                    return self._of_choice(choice, name[mark + 1 :].removesuffix(LATEST))
                listed = ", ".join(member.name for member in choice.members)
                raise ModelNotFound(
                    f"{choice.name} is a choice among models ({listed}) and has no variants of its "
                    "own; name one of the models instead"
                )
        return None

    def _of_choice(self, choice: ChoiceConfig, tokens: str | None) -> Named:
        if tokens is not None:
            _check_number(choice.name, tokens)
        return Named(self._by_name[choice.members[0].model], None, tokens, choice)

    def wanted(self, named: Named) -> Wanted:
        """The context that it asks for.

        Raises:
            ModelNotFound: no context can be asked for in this way; ContextNotFound.
        """
        if named.choice is not None:
            return self.wanted_of(self.members(named.choice)[0], named.tokens)
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
        _check_number(model.name, tokens)
        largest = max(self._contexts_of(model.name))
        if int(tokens) > largest:
            raise ContextNotFound(
                f"{model.name} has no context of {tokens} tokens; its largest has {largest}"
            )
        return int(tokens)

    def is_name(self, name: str) -> bool:
        """Whether it is a model's name, as the start of a path; the tokens asked for are not
        looked at."""
        if name in self._by_name or name in self._choices:
            return True
        found = (_named(model, name[mark:]) for mark, model in self._starts(name))
        named = next(filter(None, found), None)
        return named is not None and "/" not in (named.tokens or "")


def _check_number(name: str, tokens: str) -> None:
    """Raises ModelNotFound: something else is behind its `@`."""
    if not (tokens.isdecimal() and tokens.isascii() and len(tokens) <= _MOST_DIGITS):
        shown = _shortened(tokens)
        raise ModelNotFound(f"{name}@{shown}: expected a number of tokens after the @")


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
