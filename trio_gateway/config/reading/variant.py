"""VariantReader: the variants of one model, each with what it takes over from the model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from trio_gateway.config.engine_types import ENGINE_TYPES, EngineType
from trio_gateway.config.reading import addresses, engine_keys, familiar_words, fields, paths
from trio_gateway.config.reading.engine_keys import EngineKeys
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.schema import EngineOptions, EngineTimeouts, VariantConfig
from trio_gateway.config.server_options import PORT

REMOTE_LOAD_S = 0.1  # a guess: nothing is loaded, one look at its health


class VariantReader:
    """Made with the model's own record, of which it reads what variants fall back on."""

    def __init__(
        self,
        mistakes: Mistakes,
        ignored: list[str],
        folder: Path,
        engine: EngineType,
        model: Record,
        timeouts: EngineTimeouts,
    ) -> None:
        self._mistakes, self._ignored, self._folder = mistakes, ignored, folder
        self._engine = engine
        self._keys = EngineKeys(mistakes, engine, folder)
        self._timeouts = engine_keys.timeouts(model, timeouts)
        self._options = self._keys.options(model, EngineOptions())
        self._connect, self._stop_command = "", tuple[str, ...]()
        if engine.has_process:
            self._connect = model.read("connect", addresses.base_url, "")
            self._stop_command = model.read("stop_command", self._command(), ())
        else:
            self._keys.refuse_process_keys(model)

    def read(self, path: str, raw: Any) -> VariantConfig:
        record = Record(self._mistakes, path, raw, familiar_words.VARIANT)
        # In this order, its errors are told in the order of a usual variant.
        binary = self._binary(record) if self._engine.is_ours else ""
        context = record.require("context", fields.positive_int, "a positive integer", 0)
        parallel = record.read("parallel", fields.positive_int, self._engine.slots or 0)
        guess_s = 0.0 if self._engine.is_ours else REMOTE_LOAD_S
        load_time = record.read("load_time", fields.positive_seconds, guess_s)
        if record.has("tokenize"):
            self._ignored.append(f"{path}.tokenize")
        record.read("tokenize", fields.boolean, False)
        options = self._keys.options(record, self._options)
        self._keys.check_urls(path, options)
        if self._engine.has_process:
            process = self._process(record, binary)
        elif options.cluster is not None:
            process = self._on_cluster(record, binary)
            is_llama_server = "llama-server" in Path(binary).name
            cluster = msgspec.structs.replace(options.cluster, is_llama_server=is_llama_server)
            options = msgspec.structs.replace(options, cluster=cluster)
            parallel = parallel or (0 if is_llama_server else ENGINE_TYPES["openai"].slots or 0)
        else:
            process = self._no_process(record)
        variant = VariantConfig(
            name=record.read("name", fields.name, str(context)),
            context=context,
            parallel=parallel or None,
            timeouts=engine_keys.timeouts(record, self._timeouts),
            load_time_s=load_time or None,
            options=options,
            **process,
        )
        record.finish()
        return variant

    def _binary(self, record: Record) -> str:
        binary = record.require("binary", fields.string, "a path", "")
        if self._engine.on_cluster:
            return binary  # it is a path of the nodes
        return paths.resolve_binary(self._folder, binary)

    def _process(self, record: Record, binary: str) -> dict[str, Any]:
        """The fields of a variant whose engine is started by a command."""
        workdir = record.read("workdir", fields.string, "")
        no_words: tuple[str, ...] = ()
        args = record.require("args", addresses.engine_args, "an array of strings", no_words)
        no_variables: dict[str, str | bool] = {}
        variables = record.read("env", fields.variables, no_variables)
        env = {name: text for name, text in variables.items() if isinstance(text, str)}
        addresses.check_port(
            self._mistakes, f"{record.path}.env", env.get(PORT.variables[0]), PORT.variables[0]
        )
        connect = record.read("connect", addresses.base_url, self._connect) or None
        self._keys.check_port(record.path, args, env, connect)
        return {
            "binary": binary,
            "args": args,
            "connect": connect,
            "env": env,
            "inherits": {n: wish for n, wish in variables.items() if isinstance(wish, bool)},
            "workdir": paths.resolve(self._folder, workdir) if workdir else Path(binary).parent,
            "memory_bytes": record.read("memory", fields.size_bytes, 0) or None,
            "devices": record.read("devices", fields.positive_int, 1),
            "stop_command": record.read("stop_command", self._command(), self._stop_command),
        }

    def _on_cluster(self, record: Record, binary: str) -> dict[str, Any]:
        """The same of one that runs on a cluster, where nothing of this machine holds."""
        self._keys.refuse_process_keys(record)
        no_words: tuple[str, ...] = ()
        args = record.require("args", addresses.engine_args, "an array of strings", no_words)
        no_variables: dict[str, str | bool] = {}
        variables = record.read("env", fields.variables, no_variables)
        for name, value in variables.items():
            if isinstance(value, bool):
                what = "the gateway's own variables are not those of the cluster's nodes; set it"
                self._mistakes.add(f"{record.path}.env.{name}", what)
        env = {name: text for name, text in variables.items() if isinstance(text, str)}
        is_told = any("${PORT}" in text for text in (*args, *env.values()))
        if binary and "llama-server" not in Path(binary).name and not is_told:
            what = 'write "${PORT}" where the port belongs that the engine is to listen on'
            self._mistakes.add(f"{record.path}.args", what)
        own = {"binary": binary, "args": args, "env": env, "connect": None}
        return {**own, "workdir": self._folder, "memory_bytes": 0}

    def _no_process(self, record: Record) -> dict[str, Any]:
        """The same of an engine that is somewhere else: it holds no memory here."""
        self._keys.refuse_process_keys(record)
        none: dict[str, Any] = {"binary": "", "args": (), "env": {}, "connect": None}
        return {**none, "workdir": self._folder, "memory_bytes": 0}

    def _command(self) -> fields.Reader[tuple[str, ...]]:
        return engine_keys.command(partial(paths.resolve_binary, self._folder))


def served_as(variant: VariantConfig, name: str) -> VariantConfig:
    """Of an engine elsewhere: it is asked for the model by the model's own name, if not by another.
    A client may have used an alias, which only this gateway knows."""
    if not variant.options.urls or variant.options.served_name is not None:
        return variant
    options = msgspec.structs.replace(variant.options, served_name=name)
    return msgspec.structs.replace(variant, options=options)
