"""llama-swap's matrix: which models may run together, as sets. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from trio_gateway.converting.description import NotConvertible

_TOKEN = re.compile(r"\s*([&|()]|\+?[^\s&|()+]+)")
_MOST_SETS = 2_000

Sets = list[frozenset[str]]


def sets_of(
    expressions: Mapping[str, str], model_of: Callable[[str], str | None]
) -> tuple[Sets, list[str]]:
    """The sets, and names in them that are no models.

    Raises:
        NotConvertible: an expression that is none, or refers to itself, or has too many sets.
    """
    unknown = list[str]()
    found: Sets = []
    for name in expressions:
        found += _Parser(expressions, model_of, unknown, (name,)).sets(expressions[name])
    return list(dict.fromkeys(found)), list(dict.fromkeys(unknown))


class _Parser:
    def __init__(
        self,
        expressions: Mapping[str, str],
        model_of: Callable[[str], str | None],
        unknown: list[str],
        within: tuple[str, ...],
    ) -> None:
        self._expressions, self._model_of = expressions, model_of
        self._unknown, self._within = unknown, within
        self._tokens = list[str]()

    def sets(self, text: str) -> Sets:
        self._tokens = _tokens(self._within[-1], text)
        found = self._any()
        if self._tokens:
            raise self._wrong()
        return found

    def _any(self) -> Sets:
        found = self._all()
        while self._next_is("|"):
            found = found + self._all()
        return self._few(found)

    def _all(self) -> Sets:
        found = self._one()
        while self._next_is("&"):
            others = self._one()
            self._few(found, len(others))
            found = [a | b for a in found for b in others]
        return found

    def _one(self) -> Sets:
        if not self._tokens:
            raise self._wrong()
        token = self._tokens.pop(0)
        if token == "(":
            found = self._any()
            if not self._next_is(")"):
                raise self._wrong()
            return found
        if token in "&|)":
            raise self._wrong()
        if token.startswith("+"):
            name = token[1:]
            if name in self._within or name not in self._expressions:
                raise NotConvertible(f"matrix.sets.{self._within[-1]}: +{name} cannot be put in")
            inner = _Parser(self._expressions, self._model_of, self._unknown, (*self._within, name))
            return inner.sets(self._expressions[name])
        model = self._model_of(token)
        if model is None:
            self._unknown.append(token)
            return [frozenset()]
        return [frozenset({model})]

    def _next_is(self, token: str) -> bool:
        if self._tokens[:1] == [token]:
            self._tokens.pop(0)
            return True
        return False

    def _few(self, found: Sets, times: int = 1) -> Sets:
        if len(found) * times > _MOST_SETS:
            raise NotConvertible(f"matrix.sets.{self._within[0]}: more than {_MOST_SETS:,} sets")
        return found

    def _wrong(self) -> NotConvertible:
        return NotConvertible(f"matrix.sets.{self._within[-1]}: not an expression of & | ( )")


def _tokens(name: str, text: str) -> list[str]:
    found, end = [], 0
    text = text.rstrip()
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            raise NotConvertible(f"matrix.sets.{name}: not an expression of & | ( )")
        found.append(match[1])
        end = match.end()
    return found


def alternatives(sets: Sequence[frozenset[str]]) -> list[frozenset[str]] | None:
    """The models in classes of which one of each runs, if that is all that the sets say; None: it
    is not."""
    models = sorted({model for found in sets for model in found})
    classes = list[set[str]]()
    for model in models:
        apart = [c for c in classes if not any({model, o} <= found for found in sets for o in c)]
        if len(apart) > 1:
            return None
        if apart:
            apart[0].add(model)
        else:
            classes.append({model})
    count = 1
    for members in classes:
        count *= len(members)
    full = {found for found in sets if len(found) == len(classes)}
    rest = [found for found in sets if found not in full]
    is_all = len(full) == count and all(any(found <= other for other in full) for found in rest)
    return [frozenset(members) for members in classes] if is_all else None
