"""Reads the table `choices`: names that mean one of several models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from trio_gateway.config.choice_schema import ChoiceConfig, Member, Strategy
from trio_gateway.config.lua.values import Table, Value
from trio_gateway.config.reading import familiar_words, fields
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.schema import ModelConfig

_WHAT = 'names of models, as { "qwen3", "gemma", strategy = "loaded" }'
_LATEST = ":latest"  # names are the same with and without it; see models/names.py


def read_choices(
    mistakes: Mistakes, table: Any, models: Sequence[ModelConfig], *, more: bool = False
) -> tuple[ChoiceConfig, ...]:
    """By their names, as Lua knows no order of them. `models`: those that there are; without any,
    that is a mistake of its own, unless other gateways may have `more`."""
    if table is None:
        return ()
    if not fields.is_table(table):
        mistakes.expected("choices", "a table", table)
        return ()
    known = {word: model for model in models for word in (model.name, *model.aliases)}
    found = list[ChoiceConfig]()
    raw = sorted(table.items(), key=lambda entry: str(entry[0]))
    others = {_bare(name) for name, _ in raw if isinstance(name, str)}
    for name, value in raw:
        if not isinstance(name, str):
            hint = 'write choices = { coder = { "qwen3", "gemma" } }'
            what = f"expected names as keys, got {fields.show(name)}; {hint}"
            mistakes.add("choices", what)
            continue
        path = f"choices.{name}" if name.isidentifier() else f"choices[{fields.show(name)}]"
        if fields.name(mistakes, path, name) is None:
            continue
        _check_name(mistakes, path, name, models, [choice.name for choice in found])
        if not fields.is_table(value):
            mistakes.expected(path, _WHAT, value)
            continue
        found.append(_choice(mistakes, path, name, value, known, others, more=more))
    return tuple(found)


def settled(
    choices: Sequence[ChoiceConfig], models: Sequence[ModelConfig]
) -> tuple[ChoiceConfig, ...]:
    """With those of their members that are models by now, and without choices that have none."""
    if not any(member.is_late for choice in choices for member in choice.members):
        return tuple(choices)
    known = {word: model for model in models for word in (model.name, *model.aliases)}
    found = list[ChoiceConfig]()
    for choice in choices:
        there = (_settled(member, known) if member.is_late else member for member in choice.members)
        members = {member.model: member for member in reversed([*filter(None, there)])}
        if members:
            kept = tuple(reversed(members.values()))
            found.append(msgspec.structs.replace(choice, members=kept))
    return tuple(found)


def _settled(member: Member, known: Mapping[str, ModelConfig]) -> Member | None:
    if (start := _start(member.name, known)) is None:
        return None
    model, rest = known[start], member.name[len(start) :]
    if rest.startswith(":") and not _is_variant(model, rest[1:]):
        return None
    return Member(model.name, model.name + rest)


def words_of(choices: Sequence[ChoiceConfig]) -> dict[str, frozenset[str]]:
    """The models' own names, by each name of a choice."""
    return {choice.name: frozenset(m.model for m in choice.members) for choice in choices}


def _check_name(
    mistakes: Mistakes, path: str, name: str, models: Sequence[ModelConfig], before: Sequence[str]
) -> None:
    bare = _bare(name)
    for model in models:
        names = {_bare(word) for word in (model.name, *model.aliases)}
        if bare in names:
            what = f"{fields.show(name)} is already a name of the model {fields.show(model.name)}"
            mistakes.add(path, f"{what}; rename one of the two")
            return
        variants = {f"{word}:{variant.name}" for word in names for variant in model.variants}
        if name in variants or any(name.startswith(f"{word}@") for word in names):
            what = f"{fields.show(name)} already means a variant of {fields.show(model.name)}"
            mistakes.add(path, f"{what}; give the choice another name")
            return
    if any(bare == _bare(other) for other in before):
        mistakes.add(path, f"another choice has the name {fields.show(bare)}; rename one of them")


def _choice(
    mistakes: Mistakes,
    path: str,
    name: str,
    table: Table,
    known: Mapping[str, ModelConfig],
    choices: set[str],
    *,
    more: bool,
) -> ChoiceConfig:
    named, numbered = list[tuple[Value, Value]](), list[tuple[Value, Value]]()
    for key, value in table.items():
        (named if isinstance(key, str) else numbered).append((key, value))
    record, listed = Record(mistakes, path, Table(named), familiar_words.CHOICE), Table(numbered)
    strategy = record.read("strategy", _strategy, Strategy.LOADED)
    choice = ChoiceConfig(
        name=name,
        members=tuple(_members(mistakes, path, listed, known, choices, more=more)),
        strategy=strategy,
        spill_after=record.read("spill_after", fields.positive_int, 0) or None,
        hidden=record.read("hidden", fields.boolean, False),
        description=record.read("description", fields.text, ""),
    )
    if record.has("spill_after") and strategy is not Strategy.SPILL:
        mistakes.add(record.field_path("spill_after"), 'only strategy = "spill" has it')
    record.finish()
    return choice


def _members(
    mistakes: Mistakes,
    path: str,
    listed: Table,
    known: Mapping[str, ModelConfig],
    choices: set[str],
    *,
    more: bool,
) -> Iterator[Member]:
    if not [*listed]:
        mistakes.add(path, f"expected {_WHAT}; it names none")
    seen = dict[str, str]()
    for at, value in fields.items(mistakes, path, listed, _WHAT):
        word = fields.name(mistakes, at, value)
        if word is None or not (known or more):
            continue
        if (start := _start(word, known)) is None:
            if more and _bare(word) not in choices:
                yield Member(word.partition("@")[0], word, is_late=True)
                continue
            mistakes.add(at, _unknown(word, known, choices))
            continue
        model = known[start]
        if (rest := word[len(start) :]).startswith(":") and not _is_variant(model, rest[1:]):
            variants = ", ".join(variant.name for variant in model.variants)
            mistakes.add(
                at, f"{model.name} has no variant {fields.show(rest[1:])}; it has: {variants}"
            )
            continue
        if model.name in seen:
            other = seen[model.name]
            same = (
                "is listed twice" if other == word else f"is the same model as {fields.show(other)}"
            )
            mistakes.add(at, f"{fields.show(word)} {same}; remove one")
            continue
        seen[model.name] = word
        yield Member(model.name, model.name + rest)


def _start(word: str, known: Mapping[str, ModelConfig]) -> str | None:
    """The longest of the models' names that it is, or that it begins with up to a `:` or an `@`."""
    found = [name for name in known if word == name or word.startswith((f"{name}:", f"{name}@"))]
    return max(found, key=len, default=None)


def _is_variant(model: ModelConfig, rest: str) -> bool:
    names = {variant.name for variant in model.variants} | {_LATEST[1:]}
    return rest in names or rest.rpartition("@")[0] in names or rest.removesuffix(_LATEST) in names


def _unknown(word: str, known: Mapping[str, ModelConfig], choices: set[str]) -> str:
    if _bare(word) in choices:
        return f"{fields.show(word)} is a choice itself; name its models here"
    return f"no model {fields.show(word)}{fields.nearest(word, known)}"


def _strategy(mistakes: Mistakes, path: str, value: Any) -> Strategy | None:
    words = {strategy.value: strategy for strategy in Strategy}
    if isinstance(value, str) and value in words:
        return words[value]
    listed = ", ".join(f'"{word}"' for word in words)
    hint = fields.nearest(value, words) if isinstance(value, str) else ""
    mistakes.add(path, f"expected one of {listed}, got {fields.show(value)}{hint}")
    return None


def _bare(name: str) -> str:
    return name.removesuffix(_LATEST) or name
