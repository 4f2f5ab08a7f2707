"""`discover` of a configuration: a table for each model in some folders, as `init` writes them."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from trio_gateway.config.engine_types import LLAMACPP
from trio_gateway.config.reading.fields import Mistakes, size_bytes
from trio_gateway.finding.candidates import gather
from trio_gateway.finding.engines import (
    EMBEDDED_COMMAND,
    NAME,
    Engine,
    Engines,
    find_engine,
)
from trio_gateway.finding.entry import common_args, entry_of
from trio_gateway.finding.left import FAULTS, Left
from trio_gateway.finding.machine import room_of
from trio_gateway.finding.models import Kind, Model, models_of
from trio_gateway.finding.places import given_place
from trio_gateway.finding.plan import Planned, planned
from trio_gateway.hardware.devices import Hardware, Reading
from trio_gateway.hardware.machine import this_machine
from trio_gateway.hardware.recorded import VARIABLE

_NO_ENGINE = (
    "discover: no llama-server was found: install llama.cpp, or name one with `binary`; "
    "what was found cannot start without it"
)
_MOST_NOTES = 20  # in a folder of thousands of broken files, nobody reads more


class DiscoverError(Exception):
    """It cannot be done at all; the message says why."""


class Request(msgspec.Struct, frozen=True):
    """What the configuration says. `folders`: full paths. `binary` None: the one that is found;
    `memory` None: as much as the device has. `args`: of each model, behind its own."""

    folders: list[str]
    binary: str | None = None
    memory: float | str | None = None
    args: list[str] = []


class Discovered(msgspec.Struct, frozen=True):
    """`models`: tables, as a configuration has them, sorted by name. `watched`: folders and files
    whose change may give others."""

    models: list[dict[str, Any]]
    notes: tuple[str, ...]
    watched: tuple[str, ...]


def discover(request: Request) -> Discovered:
    """Blocks: some 20 ms for each file that is new, and 0.1 to 2 s for a first look at the engine.

    What one model gets depends on no other: a new file changes none of those before it.

    Raises:
        DiscoverError: a folder is not there; `memory` is not a size.
    """
    for folder in request.folders:
        if not os.path.exists(folder):
            raise DiscoverError(f"discover: {folder}: no such folder")
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
            raise DiscoverError(f"discover: {folder}: Permission denied")
    engines = _engines(request.binary)
    room = room_of(_devices(os.environ.get(VARIABLE)).read(), engines.engine)
    memory = room.memory_bytes if request.memory is None else _size(request.memory)
    gathered = gather([given_place(Path(folder)) for folder in request.folders])
    models, no_models = models_of(gathered.candidates)
    binary = request.binary or (engines.engine.binary if engines.engine is not None else NAME)
    args = (*common_args(is_gpu=room.is_gpu), *request.args)
    tables = list[dict[str, Any]]()
    left = [*gathered.left, *no_models]
    for model in models:
        found = _planned(model, memory, engines.engine)
        if isinstance(found, Left):
            left.append(found)
        else:
            tables.append(_table(found, binary, args))
    notes = _notes(engines, left)
    if not tables and not notes:
        notes.append(f"discover: there is no model in {' and '.join(request.folders)}")
    return Discovered(tables, tuple(notes), gathered.watched)


def _planned(model: Model, memory: int | None, engine: Engine | None) -> Planned | Left:
    return planned(
        model,
        memory,
        is_helper=model.kind is not Kind.CHAT,
        may_shrink_cache=engine is None or not engine.is_embedded,
    )


def _table(found: Planned, binary: str, common: tuple[str, ...]) -> dict[str, Any]:
    entry = entry_of(found)
    table: dict[str, Any] = {
        "name": entry.name,
        "description": entry.description,
        "engine": LLAMACPP.value,
        "discovered": True,
        "variants": [
            {
                "binary": binary,
                "context": v.context,
                "args": [
                    *("--model", entry.path, "--ctx-size", str(v.context)), *v.args, *common,
                ],
            }
            for v in entry.variants
        ],
    }  # fmt: skip
    return table if entry.pool is None else {**table, "pool": entry.pool}


def _notes(engines: Engines, left: list[Left]) -> list[str]:
    notes = [f"discover: passed by {why}" for why in engines.unfit]
    if engines.engine is None and not notes:
        notes.append(_NO_ENGINE)
    faults = [entry for entry in left if entry.why in FAULTS]
    notes += (f"discover: {entry.path}: {entry.reason}" for entry in faults[:_MOST_NOTES])
    if len(faults) > _MOST_NOTES:
        notes.append(f"discover: {len(faults) - _MOST_NOTES} more files were left out")
    return notes


def _engines(binary: str | None) -> Engines:
    """One that the configuration names is not started to ask it: `check` starts no engine."""
    if binary is None:
        return find_engine()
    is_embedded = Path(binary).name == EMBEDDED_COMMAND
    devices = () if is_embedded and sys.platform != "darwin" else None
    return Engines(Engine(binary=binary, is_embedded=is_embedded, devices=devices))


class _Devices:
    """What was read last, where a driver has no answer: contexts do not change for that."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._last: Reading | None = None

    def read(self) -> Reading:
        reading = self._hardware.read()
        if not reading.faults or self._last is None:
            self._last = reading
        return self._last


@lru_cache(maxsize=1)
def _devices(recorded: str | None) -> _Devices:
    """One that is kept asks for what does not change only once."""
    return _Devices(this_machine())


def _size(memory: float | str) -> int:
    mistakes = Mistakes()
    found = size_bytes(mistakes, "discover: memory", memory)
    if found is None:
        raise DiscoverError("; ".join(mistakes.lines))
    return found
