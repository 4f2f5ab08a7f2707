"""Readers for the keys of models and variants that depend on their type of engine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from trio_gateway.config.engine_types import ENDPOINT_NAMES, ENGINE_TYPES, EngineType, Option
from trio_gateway.config.keepalive import LoadingState
from trio_gateway.config.reading import cluster, fields, paths, sites, wake
from trio_gateway.config.reading.fields import Mistakes, Reader, Record
from trio_gateway.config.schema import NEVER, EngineOptions, EngineTimeouts, Secret
from trio_gateway.config.wake_schema import Way

# What a variant says about its process.
_PROCESS_KEYS = ("binary", "args", "connect", "env", "workdir", "memory", "stop_command")
_LOCAL_KEYS = ("connect", "workdir", "memory", "stop_command")
# Engines by names that are not presets.
_MEANT = {
    "llama-server": "llamacpp", "llama-cpp": "llamacpp", "llama": "llamacpp", "vllm": "openai",
    "sglang": "openai", "tgi": "openai", "mlx": "openai", "ollama": "remote",
}  # fmt: skip
_HEADER_TEXT = re.compile(r"[\x21-\x7e]+")


class EngineKeys:
    """Reads them for one model, whose type is known. Relative paths begin at `folder`."""

    def __init__(self, mistakes: Mistakes, engine: EngineType, folder: Path) -> None:
        self._mistakes, self._engine, self._folder = mistakes, engine, folder

    def options(self, record: Record, outer: EngineOptions) -> EngineOptions:
        """The options of this table, each falling back on the table around it."""
        program = command(partial(paths.resolve_binary, self._folder))
        readers: dict[Option, tuple[str, Reader[Any]]] = {
            Option.SERVED_NAME: ("served_name", fields.name),
            Option.HEALTH_PATH: ("health_path", _path),
            Option.API_KEY: ("api_key", _secret),
            Option.URLS: ("sites", partial(sites.sites, command=program)),
            Option.BALANCE: ("balance", sites.balance),
            Option.CA_FILE: ("ca_file", self._file),
            Option.VERIFY_TLS: ("verify_tls", fields.boolean),
            Option.CONNECT_TIMEOUT: ("connect_timeout_s", fields.positive_seconds),
            Option.FIRST_BYTE_TIMEOUT: ("first_byte_timeout_s", fields.positive_seconds),
            Option.HEALTH_INTERVAL: ("health_interval_s", fields.positive_seconds),
            Option.GATEWAY: ("gateway", fields.boolean),
            Option.WAKE_TIMEOUT: ("wake_timeout_s", fields.positive_seconds),
        }
        found: dict[str, Any] = {}
        for option, (field, reader) in readers.items():
            if option in self._engine.options:
                found[field] = record.read(option.value, reader, getattr(outer, field))
            else:
                self._refuse(record, option.value, f"only {_types_with(option)} has it")
        if "sites" in found:
            found["urls"] = tuple(site.url for site in found["sites"])
        if Option.WAKE in self._engine.options:
            around = Way(outer.wake, outer.wake_command)
            way = wake.way(self._mistakes, record, around, program)
            found["wake"], found["wake_command"] = way
        else:
            for option in (Option.WAKE, Option.WAKE_COMMAND):
                self._refuse(record, option.value, f"only {_types_with(option)} has it")
        if Option.CLUSTER in self._engine.options:
            found["cluster"] = cluster.options(record, outer.cluster)
        else:
            for key in cluster.KEYS:
                self._refuse(record, key, f"only {_types_with(Option.CLUSTER)} has it")
        return msgspec.structs.replace(outer, **found)

    def refuse_process_keys(self, record: Record) -> None:
        """Refuse them for an engine that is somewhere else. One on a cluster has a command."""
        for key in _LOCAL_KEYS if self._engine.on_cluster else _PROCESS_KEYS:
            what = f'an engine of the type "{self._engine.value}" has no process here'
            self._refuse(record, key, what)

    def _refuse(self, record: Record, key: str, why: str) -> None:
        if record.has(key):
            record.read(key, lambda *_: None, None)  # not an unknown key
            self._mistakes.add(record.field_path(key), why)

    def check_urls(self, path: str, options: EngineOptions) -> None:
        if options.cluster is not None:
            cluster.check(self._mistakes, path, options.cluster)
        elif not self._engine.has_process and not options.urls:
            what = 'expected where the engine is, such as "https://gpu.example.com/v1"'
            self._mistakes.add(f"{path}.urls", f"missing; {what}")
        sites.check(self._mistakes, path, options.balance, options.sites)

    def check_port(
        self, path: str, args: Sequence[str], env: Mapping[str, str], connect: str | None
    ) -> None:
        """Nothing is added to the arguments of some types, so they must say where to listen."""
        if not self._engine.needs_port or connect is not None or not args:
            return
        if not any("${PORT}" in text for text in (*args, *env.values())):
            what = (
                f'the type "{self._engine.value}" adds nothing to them: write "${{PORT}}" where '
                "the port belongs, or set `connect` to where the engine listens"
            )
            self._mistakes.add(f"{path}.args", what)

    def _file(self, mistakes: Mistakes, path: str, value: Any) -> Path | None:
        text = fields.string(mistakes, path, value)
        return self._folder / os.path.expanduser(text) if text else None


def timeouts(record: Record, outer: EngineTimeouts) -> EngineTimeouts:
    """The three timeouts of this table, each falling back on the table around it."""
    seconds = fields.positive_seconds
    return EngineTimeouts(
        health_check_s=record.read("health_check_timeout", seconds, outer.health_check_s),
        startup_s=record.read("engine_startup_timeout", seconds, outer.startup_s),
        idle_s=record.read("engine_idle_timeout", _idle_seconds, outer.idle_s),
        stop_s=outer.stop_s,
    )


def _idle_seconds(mistakes: Mistakes, path: str, value: Any) -> float | None:
    """Infinite: it is never stopped for being idle."""
    if isinstance(value, int | float) and value in (0, -1, NEVER) and not isinstance(value, bool):
        return NEVER
    return fields.positive_seconds(mistakes, path, value)


def engine(mistakes: Mistakes, path: str, value: Any) -> EngineType | None:
    if isinstance(value, str) and value in ENGINE_TYPES:
        return ENGINE_TYPES[value]
    known = {engine.preset: f"presets.engines.{engine.preset}" for engine in ENGINE_TYPES.values()}
    meant = fields.near_word(value, (*known, *_MEANT)) if isinstance(value, str) else None
    hint = f"; write {known[_MEANT.get(meant, meant)]}, without quotes" if meant is not None else ""
    what = f"{', '.join([*known.values()][:-1])} or {[*known.values()][-1]}"
    mistakes.add(path, f"expected {what}, got {fields.show(value)}{hint}")
    return None


def command(resolve: Callable[[str], str]) -> Reader[tuple[str, ...]]:
    """A program and its arguments; `resolve` finds the program."""

    def read(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
        words = fields.string_array(mistakes, path, value)
        if words and words[0]:
            return (resolve(words[0]), *words[1:])
        if words or (fields.is_table(value) and not [*value.keys()]):
            mistakes.expected(path, "a program and its arguments, an array of strings", value)
        return None

    return read


def endpoints(mistakes: Mistakes, path: str, value: Any) -> frozenset[str] | None:
    """Paths of the API, without the leading slash and `v1/`."""
    found = set()
    for at, entry in fields.items(mistakes, path, value, "an array of endpoints"):
        name = entry.strip("/").removeprefix("v1/") if isinstance(entry, str) else entry
        if name in ENDPOINT_NAMES:
            found.add(name)
        else:
            hint = fields.nearest(name, ENDPOINT_NAMES) if isinstance(name, str) else ""
            what = f"not a known endpoint: {fields.show(entry)}"
            mistakes.add(at, what + (hint or '; such as "chat/completions"'))
    return frozenset(found)


def loading_state(mistakes: Mistakes, path: str, value: Any) -> LoadingState | None:
    """`false` is "none"."""
    for state in LoadingState:
        if value == state.value:
            return state
    if value is not False:
        mistakes.expected(path, '"reasoning" or false', value)
        return None
    return LoadingState.NONE


def _types_with(option: Option) -> str:
    """The types that have an option, as text."""
    having = [known for known in ENGINE_TYPES.values() if option in known.options]
    return " or ".join(f"presets.engines.{known.preset}" for known in having)


def _path(mistakes: Mistakes, path: str, value: Any) -> str | None:
    if isinstance(value, str) and value.startswith("/") and _HEADER_TEXT.fullmatch(value):
        return value
    mistakes.expected(path, 'a path such as "/health"', value)
    return None


def _secret(mistakes: Mistakes, path: str, value: Any) -> Secret | None:
    if isinstance(value, str) and _HEADER_TEXT.fullmatch(value):
        return Secret(value)
    # The value is not shown.
    mistakes.add(path, 'expected a key (printable ASCII, no spaces), such as env("API_KEY")')
    return None
