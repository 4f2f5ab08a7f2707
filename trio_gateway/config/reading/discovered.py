"""Of the tables that `discover` gives those that have a place next to the ones written by hand.

A new file in a folder must not make a valid configuration an invalid one, so that a discovered
model gives way where it would be an error: it is left out, with a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from trio_gateway.config.engine_args import EngineArgs
from trio_gateway.config.reading import fields
from trio_gateway.config.server_options import MODEL


def without_taken(
    models: Any, choices: Any, tables: Iterable[tuple[str, Any]], notes: list[str]
) -> Iterator[tuple[str, Any]]:
    """`tables` are those in `models`, each with its path. Left out: a discovered one whose name
    another or a choice has, with a note; and one whose file is in one that was written by hand, as
    that is what was meant."""
    names = [*choices.keys()] if fields.is_table(choices) else []
    owners = {name: f"choices.{name}" for name in names if isinstance(name, str)}
    files = set[str]()
    for key, raw in models.items() if fields.is_table(models) else ():
        if fields.is_table(raw) and raw["discovered"] is not True:
            owners.update(dict.fromkeys(_names(raw), f"models[{key}]"))
            files.update(_files(raw))
    for path, raw in tables:
        if raw["discovered"] is True:
            if not files.isdisjoint(_files(raw)):
                continue
            taken = next((name for name in _names(raw) if name in owners), None)
            if taken is not None:
                where = next(iter(_files(raw)), path)
                notes.append(
                    f"discover: {where}: left out, as {fields.show(taken)} is a name of "
                    f"{owners[taken]}; give it a table of its own, or rename the file"
                )
                continue
            owners.update(dict.fromkeys(_names(raw), path))
        yield path, raw


def _names(raw: Any) -> list[str]:
    return [name for name in (raw["name"], *_values(raw["aliases"])) if isinstance(name, str)]


def _values(table: Any) -> list[Any]:
    return [value for _, value in table.items()] if fields.is_table(table) else []


def _files(raw: Any) -> list[str]:
    """Of its variants, as far as their arguments can be read."""
    found = list[str]()
    for variant in _values(raw["variants"]):
        words = _values(variant["args"]) if fields.is_table(variant) else []
        file = EngineArgs([word for word in words if isinstance(word, str)]).value(MODEL)
        if file is not None:
            found.append(file)
    return found
