"""ConfigLoader: a Lua file in, a checked GatewayConfig out, or every mistake in it at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from trio_gateway.config import (
    addresses,
    engine_keys,
    fields,
    lua_sandbox,
    pool_memory,
    readers,
)
from trio_gateway.config.engine_types import (
    ENGINE_TYPES,
    LLAMACPP,
    UNLIMITED_ENGINES,
    EngineType,
)
from trio_gateway.config.fields import Mistakes, Record
from trio_gateway.config.rewrite import rewrite
from trio_gateway.config.schema import (
    EngineTimeouts,
    GatewayConfig,
    KvCarryoverConfig,
    ListenAddress,
    ModelConfig,
    PoolConfig,
    ServerConfig,
    TokenizationConfig,
    VariantConfig,
)
from trio_gateway.config.variant_reader import VariantReader, served_as

_REQUIRED_TABLES = {
    "server": "a table (it may be empty: server = {})",
    "models": "an array of models",
}


class ConfigError(Exception):
    """The configuration is wrong. `mistakes` has one line for each, ready to print."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class ConfigLoader:
    """Reads one configuration file. `load` may be called again: the file is read anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Relative paths in a configuration are relative to its own folder.
        self._folder = Path(os.path.abspath(path)).parent

    def load(self) -> GatewayConfig:
        """Run the file and check what it left.

        Raises:
            ConfigError: with every mistake that was found.
        """
        try:
            top = lua_sandbox.run_file(self._path)
            return self._check(top)
        except lua_sandbox.LuaFailure as error:
            raise ConfigError([str(error)]) from None
        except UnicodeDecodeError:
            raise ConfigError([f"{self._path}: a string in it is not UTF-8 text"]) from None

    def _check(self, top: Any) -> GatewayConfig:
        mistakes, ignored = Mistakes(), list[str]()
        for name, what in _REQUIRED_TABLES.items():
            if top[name] is None:
                tables = [k for k, v in top.items() if isinstance(k, str) and fields.is_table(v)]
                mistakes.add(name, f"missing; expected {what}{fields.nearest(name, tables)}")
        server = self._server(mistakes, top["server"])
        pools = self._pools(mistakes, top["pools"])
        models, paths = self._models(mistakes, ignored, top["models"], server.timeouts, pools)
        notes = _notes(ignored)
        models = pool_memory.with_estimates(mistakes, notes, models, paths, pools)
        if mistakes.lines:
            raise ConfigError([f"{self._path}: {line}" for line in mistakes.lines])
        return GatewayConfig(
            source=self._path, server=server, models=models, pools=pools, notes=tuple(notes)
        )

    # -- server ---------------------------------------------------------------------------

    def _server(self, mistakes: Mistakes, table: Any) -> ServerConfig:
        record = Record(mistakes, "server", table)
        default = ServerConfig()
        before = len(mistakes.lines)
        v4 = record.read("listen_v4", addresses.listen_v4, default.listen)
        none: tuple[ListenAddress, ...] = ()
        v6 = record.read("listen_v6", addresses.listen_v6, none)
        if not v4 and not v6 and len(mistakes.lines) == before:
            mistakes.add("server", 'listen_v4 and listen_v6 are both "none": nothing to listen on')
        fixed = [address for address in (*v4, *v6) if address.port]
        if len(set(fixed)) < len(fixed):
            mistakes.add("server", "an address to listen on is given twice")
        dumps = record.read("dumps_dir", fields.string, "")
        server = ServerConfig(
            listen=(*v4, *v6),
            timeouts=msgspec.structs.replace(
                readers.timeouts(record, default.timeouts),
                stop_s=record.read(
                    "engine_stop_timeout", fields.positive_seconds, default.timeouts.stop_s
                ),
            ),
            shutdown_grace_s=record.read(
                "shutdown_grace", fields.seconds, default.shutdown_grace_s
            ),
            dumps_dir=self._resolve(dumps) if dumps else None,
            clear_dumps_on_start=record.read("clear_dumps_on_start", fields.boolean, False),
            max_body_bytes=record.read("max_body_size", fields.size_bytes, default.max_body_bytes),
            default_answer_tokens=record.read("default_answer_tokens", fields.positive_int, 0)
            or None,
            queue_limit=record.read("queue_limit", fields.positive_int, default.queue_limit),
            queue_timeout_s=record.read(
                "queue_timeout", fields.positive_seconds, default.queue_timeout_s
            ),
            fairness_window_s=record.read(
                "fairness_window", fields.seconds, default.fairness_window_s
            ),
            stream_keepalive_s=record.read(
                "stream_keepalive", fields.seconds, default.stream_keepalive_s
            ),
            kv_carryover=self._kv_carryover(record),
        )
        record.finish()
        return server

    def _kv_carryover(self, server: Record) -> KvCarryoverConfig | None:
        """A table, or `false` for "not at all"."""
        if server.read("kv_carryover", readers.table_or_false, True) is False:
            return None
        record = server.inner("kv_carryover")
        default = KvCarryoverConfig()
        directory = record.read("directory", fields.string, "")
        result = KvCarryoverConfig(
            directory=self._resolve(directory) if directory else None,
            max_bytes=record.read("max_size", fields.size_bytes, default.max_bytes),
            persist=record.read("persist", fields.boolean, default.persist),
        )
        record.finish()
        return result

    # -- pools ----------------------------------------------------------------------------

    @staticmethod
    def _pools(mistakes: Mistakes, table: Any) -> dict[str, PoolConfig]:
        pools = {t.default_pool: _default_pool(t) for t in ENGINE_TYPES.values()}
        if table is not None and not fields.is_table(table):
            mistakes.expected("pools", "a table", table)
            return pools
        for name, raw in sorted((table or {}).items(), key=lambda entry: str(entry[0])):
            if not isinstance(name, str):
                mistakes.add("pools", f"expected names as keys, got {fields.show(name)}")
                continue
            record = Record(mistakes, f"pools.{name}", raw)
            default = pools.get(name, PoolConfig(name))
            pools[name] = PoolConfig(
                name,
                engines=record.read("engines", fields.positive_int, default.engines),
                memory_bytes=record.read("memory", fields.size_bytes, 0) or None,
            )
            record.finish()
        return pools

    # -- models ---------------------------------------------------------------------------

    def _models(
        self,
        mistakes: Mistakes,
        ignored: list[str],
        table: Any,
        timeouts: EngineTimeouts,
        pools: dict[str, PoolConfig],
    ) -> tuple[tuple[ModelConfig, ...], list[tuple[str, ...]]]:
        """The models; and for each, the paths of its variants in the file."""
        if table is None:
            return (), []
        before = len(mistakes.lines)
        models = list[ModelConfig]()
        paths = list[tuple[str, ...]]()
        owners = dict[str, str]()
        for path, raw in fields.items(mistakes, "models", table, "an array of models"):
            if not fields.is_table(raw):
                mistakes.expected(path, "a table", raw)
                continue
            name = raw["name"]
            at = f"{path} {fields.show(name)}" if isinstance(name, str) else path
            model, variant_paths = self._model(mistakes, ignored, at, raw, timeouts)
            if model.pool not in pools:
                known = ", ".join(pools)
                mistakes.add(f"{at}.pool", f'no pool "{model.pool}"; there is: {known}')
            for word in filter(None, (model.name, *model.aliases)):
                if word in owners:
                    mistakes.add(at, f'the name "{word}" is taken by {owners[word]}')
                owners.setdefault(word, at)
            models.append(model)
            paths.append(variant_paths)
        if not models and len(mistakes.lines) == before:
            mistakes.add("models", "expected at least one model")
        return tuple(models), paths

    def _model(
        self, mistakes: Mistakes, ignored: list[str], path: str, raw: Any, outer: EngineTimeouts
    ) -> tuple[ModelConfig, tuple[str, ...]]:
        record = Record(mistakes, path, raw)
        engine = record.require("engine", readers.engine, "one of presets.engines", LLAMACPP)
        reader = VariantReader(mistakes, ignored, self._folder, engine, record, outer)
        variants, paths = list[VariantConfig](), list[str]()
        raw_variants = record.require("variants", readers.anything, "an array of variants", None)
        if raw_variants is not None:
            at = record.field_path("variants")
            for where, entry in fields.items(mistakes, at, raw_variants, "an array of variants"):
                if not fields.is_table(entry):
                    mistakes.expected(where, "a table", entry)
                    continue
                variant = reader.read(where, entry)
                if any(variant.name == v.name for v in variants) and not entry["name"]:
                    name = f"{variant.name}-{len(variants) + 1}"
                    variant = msgspec.structs.replace(variant, name=name)
                variants.append(variant)
                paths.append(where)
            if not variants and fields.is_table(raw_variants):
                mistakes.add(at, "expected at least one variant")
        names = [v.name for v in variants]
        for name in sorted({n for n in names if names.count(n) > 1}):
            mistakes.add(path, f'two variants are named "{name}"; give each a name of its own')
        tokenization = record.read("tokenization", self._tokenization, None)
        by_context = sorted(range(len(variants)), key=lambda i: variants[i].context)
        name = record.require("name", fields.name, "a string", "")
        model = ModelConfig(
            name=name,
            aliases=record.read("aliases", fields.names, ()),
            engine=engine,
            pool=record.read("pool", fields.string, engine.default_pool),
            variants=tuple(served_as(variants[i], name) for i in by_context),
            tokenization=tokenization,
            pinned=record.read("pinned", fields.boolean, False),
            hidden=record.read("hidden", fields.boolean, False),
            description=record.read("description", fields.text, ""),
            image_tokens=record.read("image_tokens", fields.positive_int, 1024),
            clamp_answer=record.read("clamp_answer", fields.boolean, False),
            min_answer_tokens=record.read("min_answer_tokens", fields.positive_int, 0) or None,
            headroom=record.read("headroom", fields.share, 0.1),
            kv_carryover=record.read("kv_carryover", fields.boolean, True),
            kv_conversations=record.read("kv_conversations", fields.count, 0),
            rewrite=record.read("rewrite", rewrite, None),
            endpoints=record.read("endpoints", engine_keys.endpoints, None),
        )
        record.finish()
        return model, tuple(paths[i] for i in by_context)

    def _tokenization(self, mistakes: Mistakes, path: str, raw: Any) -> TokenizationConfig | None:
        record = Record(mistakes, path, raw)
        default = TokenizationConfig(binary="")
        result = TokenizationConfig(
            binary=self._resolve_binary(record.require("binary", fields.string, "a path", "")),
            base_args=record.read("base_args", readers.words, default.base_args),
            extra_args=record.read("extra_args", fields.string_array, ()),
            extra_tokens_per_message=record.read("extra_tokens_per_message", fields.count, 0),
            extra_tokens=record.read("extra_tokens", fields.count, 0),
        )
        record.finish()
        return result

    def _resolve(self, path: str) -> Path:
        return readers.resolve(self._folder, path)

    def _resolve_binary(self, binary: str) -> str:
        return readers.resolve_binary(self._folder, binary)


def _default_pool(engine: EngineType) -> PoolConfig:
    return PoolConfig(engine.default_pool, 1 if engine.has_process else UNLIMITED_ENGINES)


def _notes(ignored: list[str]) -> list[str]:
    """One remark for all keys that an earlier gateway knew and that mean nothing here."""
    if not ignored:
        return []
    more = f" (and {len(ignored) - 1} more)" if len(ignored) > 1 else ""
    return [f"{ignored[0]}{more} has no effect: tokens are counted when needed"]
