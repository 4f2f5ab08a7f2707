"""Reads an entry of `models` that stands for what other gateways have: one with `models`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.reading import engine_keys, fields
from trio_gateway.config.reading.engine_keys import EngineKeys
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, PeerConfig

ALL = "all"
_REMOTE = ENGINE_TYPES["remote"]
_THEIRS = "that gateway says it of each of its models"
_OF_ONE = "it is of one model; give that an entry of its own"
_WORDS = {
    **dict.fromkeys(("variants", "context", "endpoints", "aliases", "description"), _THEIRS),
    **dict.fromkeys(
        (
            "rewrite", "served_name", "tokenization", "pinned", "preload", "image_tokens",
            "clamp_answer", "min_answer_tokens", "longest_answer", "loading_state", "load_time",
        ),
        _OF_ONE,
    ),
    **dict.fromkeys(("url", "base_url", "address", "host"), 'use "urls"'),
    **dict.fromkeys(("key", "token"), 'use "api_key"'),
    **dict.fromkeys(("interval", "refresh", "poll"), 'use "health_interval"'),
}  # fmt: skip


def is_peer(raw: Any) -> bool:
    """Whether an entry of `models` is one of these."""
    return raw["models"] is not None


def read_peer(
    mistakes: Mistakes, folder: Path, path: str, raw: Any, timeouts: EngineTimeouts
) -> PeerConfig:
    record = Record(mistakes, path, raw, _WORDS)
    engine = record.read("engine", engine_keys.engine, _REMOTE)
    if engine is not _REMOTE:
        mistakes.add(f"{path}.models", f"only presets.engines.{_REMOTE.preset} has it")
    keys = EngineKeys(mistakes, _REMOTE, folder)
    if record.has("served_name"):
        mistakes.add(f"{path}.served_name", f"has no place here: {_OF_ONE}")
    options = keys.options(record, EngineOptions(gateway=True))
    keys.check_urls(path, options)
    none: tuple[str, ...] | None = None
    peer = PeerConfig(
        name=record.require(
            "name", fields.name, 'what these gateways are called here, such as "box2"', ""
        ),
        models=record.read("models", _models, none),
        options=options,
        timeouts=engine_keys.timeouts(record, timeouts),
        pool=record.read("pool", fields.string, _REMOTE.default_pool),
        parallel=record.read("parallel", fields.positive_int, _REMOTE.slots),
        hidden=record.read("hidden", fields.boolean, False),
    )
    record.finish()
    return peer


def check_names(mistakes: Mistakes, found: Sequence[tuple[str, PeerConfig]]) -> None:
    """Each has one of its own. With their paths."""
    paths = dict[str, str]()
    for path, peer in found:
        owner = paths.setdefault(peer.name, path)
        if owner != path and peer.name:
            mistakes.add(path, f"{owner} has the same name; rename one of the two")


def _models(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    """None: all of them."""
    if isinstance(value, str):
        if value != ALL:
            mistakes.expected(path, f'"{ALL}", or an array of names', value)
        return None
    if fields.is_table(value) and not [*value.keys()]:
        mistakes.add(path, f'expected at least one name, or "{ALL}"')
    return fields.names(mistakes, path, value)
