"""ConfigLoader: a Lua file in, a checked GatewayConfig out, or every error in it at once."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from trio_gateway.config import pool_memory, remarks
from trio_gateway.config.engine_args import inherited_options
from trio_gateway.config.largest_input import with_largest_inputs
from trio_gateway.config.lua import sandbox
from trio_gateway.config.lua.values import NotText
from trio_gateway.config.reading import access, fields
from trio_gateway.config.reading.choices import read_choices, settled
from trio_gateway.config.reading.fields import Mistakes
from trio_gateway.config.reading.model import ModelReader
from trio_gateway.config.reading.pool import read_pools
from trio_gateway.config.reading.preload import check_preload
from trio_gateway.config.reading.server import read_server
from trio_gateway.config.schema import GatewayConfig, ModelConfig
from trio_gateway.config.secret_variables import secret_variables
from trio_gateway.config.too_large import without_too_large

_REQUIRED_TABLES = {
    "server": "a table (it may be empty: server = {})",
    "models": "an array of models",
}
_READ = (*_REQUIRED_TABLES, "pools", "choices")


class ConfigError(Exception):
    """The configuration is not valid. `mistakes` has one text for each error, ready to print;
    `files` are those that it consists of, as far as that is known."""

    def __init__(self, mistakes: list[str], files: tuple[Path, ...] = ()) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes, self.files = mistakes, files


class ConfigLoader:
    """Reads one configuration file. `load` may be called again: the file is read anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Relative paths in a configuration are relative to its own folder.
        self._folder = Path(os.path.abspath(path)).parent

    def load(self) -> GatewayConfig:
        """Run the file and check what it left.

        Raises:
            ConfigError: with every error that was found.
        """
        try:
            return self._check(sandbox.run_file(self._path, _READ))
        except sandbox.LuaFailure as error:
            raise ConfigError([str(error)], error.files) from None
        except NotText:
            raise ConfigError([f"{self._path}: a string in it is not UTF-8 text"]) from None

    def _check(self, left: sandbox.Outcome) -> GatewayConfig:
        mistakes, top = Mistakes(), left.globals
        for name, what in _REQUIRED_TABLES.items():
            if top[name] is None:
                tables = [k for k, v in top.items() if isinstance(k, str) and fields.is_table(v)]
                near = fields.near_word(name, tables)
                hint = f'; found "{near}"; rename it to "{name}"' if near is not None else ""
                mistakes.add(name, f"missing; expected {what}{hint}")
        server = read_server(mistakes, top["server"], self._folder)
        pools = read_pools(mistakes, top["pools"])
        may_be_empty = left.watched is not None  # a folder that has no models yet
        reader = ModelReader(mistakes, self._folder, server.timeouts, may_be_empty=may_be_empty)
        models, paths = reader.read(top["models"], pools, top["choices"])
        peers = tuple(peer for _, peer in reader.peers)
        models, paths = without_too_large(models, paths, pools, reader.notes)
        models = with_largest_inputs(tuple(map(_with_inherited_options, models)))
        written = read_choices(mistakes, top["choices"], models, more=bool(peers))
        choices = settled(written, models)
        callers = access.with_known_models(
            mistakes, server.access, models, written, more=bool(peers)
        )
        server = msgspec.structs.replace(server, access=callers)
        check_preload(mistakes, server.preload, models, written)
        notes = [
            *left.remarks,
            *reader.notes,
            *_notes(reader.ignored),
            *remarks.on_globals(key for key in top if isinstance(key, str)),
            *remarks.on_variants(models, paths, server, os.environ),
            *remarks.on_choices(choices, models, pools),
            *access.notes(callers, server.listen, server.tls),
        ]
        models = pool_memory.with_estimates(mistakes, notes, models, paths, pools)
        if mistakes.lines:
            raise ConfigError([f"{self._path}: {line}" for line in mistakes.lines], left.files)
        return GatewayConfig(
            source=self._path,
            server=server,
            models=models,
            pools=pools,
            choices=choices,
            written_choices=written,
            peers=peers,
            notes=tuple(notes),
            secret_variables=secret_variables(left.variables, server, models, peers),
            files=left.files,
            watched=left.watched or (),
        )


def _with_inherited_options(model: ModelConfig) -> ModelConfig:
    variants = tuple(
        msgspec.structs.replace(v, inherited_options=inherited_options(os.environ, v.inherits))
        if v.options.cluster is None
        else v  # what runs there inherits nothing from here
        for v in model.variants
    )
    return msgspec.structs.replace(model, variants=variants)


def _notes(ignored: list[str]) -> list[str]:
    """One remark for all keys that an earlier gateway knew and that mean nothing here."""
    if not ignored:
        return []
    more = f" (and {len(ignored) - 1} more)" if len(ignored) > 1 else ""
    return [f"{ignored[0]}{more} has no effect: tokens are counted when needed"]
