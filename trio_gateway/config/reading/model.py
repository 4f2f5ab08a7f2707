"""ModelReader: the table `models`, each model with its variants."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from trio_gateway.config.engine_types import LLAMACPP, EngineType
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.reading import engine_keys, familiar_words, fields, paths
from trio_gateway.config.reading.discovered import without_taken
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.reading.peer import check_names, is_peer, read_peer
from trio_gateway.config.reading.rewrite import rewrite
from trio_gateway.config.reading.variant import VariantReader, served_as
from trio_gateway.config.schema import (
    EngineTimeouts,
    ModelConfig,
    PeerConfig,
    TokenizationConfig,
    VariantConfig,
)

_ENGINE = "one of presets.engines, such as presets.engines.llamacpp"


class ModelReader:
    """`timeouts` are the server's, which models fall back on.

    `ignored`: paths of the keys that an earlier gateway knew and that mean nothing here. `notes`:
    what else is to be said. `peers`: other gateways, each with its path. `may_be_empty`: it is no
    error to have no models.
    """

    def __init__(
        self,
        mistakes: Mistakes,
        folder: Path,
        timeouts: EngineTimeouts,
        *,
        may_be_empty: bool = False,
    ) -> None:
        self._mistakes, self._folder, self._timeouts = mistakes, folder, timeouts
        self._may_be_empty = may_be_empty
        self.ignored = list[str]()
        self.notes = list[str]()
        self.peers = list[tuple[str, PeerConfig]]()

    def read(
        self, table: Any, pools: Mapping[str, PoolConfig], choices: Any = None
    ) -> tuple[tuple[ModelConfig, ...], list[tuple[str, ...]]]:
        """The models; and for each, the paths of its variants in the file. `choices`: the table of
        that name."""
        mistakes = self._mistakes
        if table is None:
            return (), []
        before = len(mistakes.lines)
        models = list[ModelConfig]()
        paths = list[tuple[str, ...]]()
        owners = dict[str, str]()
        tables = fields.tables(mistakes, "models", table, "an array of models")
        for path, raw in without_taken(table, choices, tables, self.notes):
            name = raw["name"]
            at = f"{path} {fields.show(name)}" if isinstance(name, str) else path
            if is_peer(raw):
                peer = read_peer(mistakes, self._folder, at, raw, self._timeouts)
                self._check_pool(at, peer.pool, pools)
                self.peers.append((at, peer))
                continue
            model, variant_paths = self._model(at, raw)
            self._check_pool(at, model.pool, pools)
            self._check_names(at, model, owners)
            models.append(model)
            paths.append(variant_paths)
        check_names(mistakes, self.peers)
        may_be_empty = self._may_be_empty or self.peers
        if not models and not may_be_empty and len(mistakes.lines) == before:
            mistakes.add("models", "expected at least one model")
        return tuple(models), paths

    def _check_pool(self, path: str, pool: str, pools: Mapping[str, PoolConfig]) -> None:
        if pool not in pools:
            is_word = re.fullmatch(r"[A-Za-z_]\w*", pool, re.ASCII)
            key = pool if is_word else f"[{fields.show(pool)}]"
            what = f"no pool {fields.show(pool)}; known: {', '.join(pools)}"
            self._mistakes.add(f"{path}.pool", f"{what}; or add `pools = {{ {key} = {{}} }}`")

    def _check_names(self, path: str, model: ModelConfig, owners: dict[str, str]) -> None:
        """Note whose its names are. `owners`: the paths of the models before it, by name."""
        for index, word in enumerate(filter(None, (model.name, *model.aliases))):
            at = f"{path}.aliases" if index else path
            owner = owners.setdefault(word, path)
            if owner != path:
                what = f"{fields.show(word)} is already a name of {owner}; rename one of the two"
                self._mistakes.add(at, what)
            elif index and word == model.name:
                self._mistakes.add(at, f"{fields.show(word)} is the model's own name; remove it")
            elif word in model.aliases[: index - 1] and index:
                self._mistakes.add(at, f"{fields.show(word)} is listed twice; remove one")

    def _model(self, path: str, raw: Any) -> tuple[ModelConfig, tuple[str, ...]]:
        mistakes = self._mistakes
        record = Record(mistakes, path, raw, familiar_words.MODEL)
        engine = record.require("engine", engine_keys.engine, _ENGINE, LLAMACPP)
        variants, paths_in_file = self._variants(record, engine)
        tokenization = record.read("tokenization", self._tokenization, None)
        name = record.require("name", fields.name, "a string", "")
        model = ModelConfig(
            name=name,
            aliases=record.read("aliases", fields.names, ()),
            engine=engine,
            pool=record.read("pool", fields.string, engine.default_pool),
            variants=tuple(served_as(variant, name) for variant in variants),
            tokenization=tokenization,
            pinned=record.read("pinned", fields.boolean, False),
            preload=record.read("preload", fields.boolean, False),
            hidden=record.read("hidden", fields.boolean, False),
            description=record.read("description", fields.text, ""),
            image_tokens=record.read("image_tokens", fields.positive_int, 1024),
            clamp_answer=record.read("clamp_answer", fields.boolean, None),
            min_answer_tokens=record.read("min_answer_tokens", fields.positive_int, 0) or None,
            headroom=record.read("headroom", fields.share, 0.1),
            longest_answer_s=_longest_answer_s(record),
            kv_carryover=record.read("kv_carryover", fields.boolean, True),
            kv_conversations=record.read("kv_conversations", fields.count, 0),
            loading_state=record.read("loading_state", engine_keys.loading_state, None),
            rewrite=record.read("rewrite", rewrite, None),
            endpoints=record.read("endpoints", engine_keys.endpoints, None),
            discovered=record.read("discovered", fields.boolean, False),
        )
        record.finish()
        return model, paths_in_file

    def _variants(
        self, model: Record, engine: EngineType
    ) -> tuple[list[VariantConfig], tuple[str, ...]]:
        """The smallest context first, and the path of each in the file."""
        mistakes = self._mistakes
        reader = VariantReader(mistakes, self.ignored, self._folder, engine, model, self._timeouts)
        variants, where_in_file = list[VariantConfig](), list[str]()
        raw = model.require("variants", fields.anything, "an array of variants", None)
        at = model.field_path("variants")
        if raw is not None:
            for where, entry in fields.tables(mistakes, at, raw, "an array of variants"):
                variant = reader.read(where, entry)
                if any(variant.name == v.name for v in variants) and not entry["name"]:
                    name = f"{variant.name}-{len(variants) + 1}"
                    variant = msgspec.structs.replace(variant, name=name)
                variants.append(variant)
                where_in_file.append(where)
            if fields.is_table(raw) and not [*raw]:
                mistakes.add(at, "expected at least one variant")
        names = [v.name for v in variants]
        for name in sorted({n for n in names if names.count(n) > 1}):
            what = f'two variants are named "{name}"; give each a name of its own'
            mistakes.add(model.path, what)
        by_context = sorted(range(len(variants)), key=lambda i: variants[i].context)
        return [variants[i] for i in by_context], tuple(where_in_file[i] for i in by_context)

    def _tokenization(self, mistakes: Mistakes, path: str, raw: Any) -> TokenizationConfig | None:
        record = Record(mistakes, path, raw)
        default = TokenizationConfig(binary="")
        binary = record.require("binary", fields.string, "a path", "")
        result = TokenizationConfig(
            binary=paths.resolve_binary(self._folder, binary),
            base_args=record.read("base_args", fields.words, default.base_args),
            extra_args=record.read("extra_args", fields.string_array, ()),
            extra_tokens_per_message=record.read("extra_tokens_per_message", fields.count, 0),
            extra_tokens=record.read("extra_tokens", fields.count, 0),
        )
        record.finish()
        return result


def _longest_answer_s(record: Record) -> float | None:
    """0: none, whatever the pool has."""
    given = record.read("longest_answer", fields.seconds, -1.0)
    if given < 0:
        return None
    return given or math.inf
