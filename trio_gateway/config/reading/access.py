"""Readers for who may call: keys, hosts, origins, TLS, Unix sockets, limits.

No message here quotes a key: what a wrong file says ends up on screens and in bug reports.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from trio_gateway.config.access_schema import (
    ANY_ORIGIN,
    LOCALHOST_PAGES,
    AccessConfig,
    ApiKey,
    ConnectionLimits,
    TlsConfig,
    UnixAddress,
    is_loopback,
)
from trio_gateway.config.choice_schema import ChoiceConfig
from trio_gateway.config.key_hash import is_hash, parse_hash
from trio_gateway.config.places import read_place
from trio_gateway.config.priority import Priority
from trio_gateway.config.reading import familiar_words, fields
from trio_gateway.config.reading.choices import words_of
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.schema import ListenAddress, ModelConfig

KEY_MAX_LENGTH = 256
KEY_GOOD_LENGTH = 16

_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)(?::\d{1,5})?"
)
_SCHEME_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\*|[A-Za-z0-9_.-]+)(?::\d{1,5})?")
_MODE = re.compile(r"0?[0-7]{3}")


def access(record: Record) -> AccessConfig:
    """The part of the table `server` that says who may call."""
    default = AccessConfig()
    return AccessConfig(
        api_keys=record.read("api_keys", api_keys, ()),
        allowed_hosts=record.read("allowed_hosts", _hosts, ()),
        allowed_origins=record.read("allowed_origins", _origins, default.allowed_origins),
        allow_unauthenticated=record.read("allow_unauthenticated", fields.boolean, False),
    )


def limits(record: Record) -> ConnectionLimits:
    default = ConnectionLimits()
    seconds, integer = fields.positive_seconds, fields.positive_int
    return ConnectionLimits(
        max_header_bytes=record.read(
            "max_header_size", fields.size_bytes, default.max_header_bytes
        ),
        header_timeout_s=record.read("header_timeout", seconds, default.header_timeout_s),
        body_timeout_s=record.read("body_timeout", seconds, default.body_timeout_s),
        send_timeout_s=record.read("send_timeout", seconds, default.send_timeout_s),
        requests_per_connection=record.read(
            "requests_per_connection", integer, default.requests_per_connection
        ),
        connections_per_address=record.read(
            "connections_per_address", integer, default.connections_per_address
        ),
        max_connections=record.read("max_connections", integer, 0) or None,
    )


def tls(record: Record, resolve: Callable[[str], Path]) -> TlsConfig | None:
    """`{ certificate = …, key = … }`. The files are read when they are used."""
    if not record.read("tls", _table, False):
        return None
    inner = record.inner("tls", familiar_words.TLS)
    certificate = inner.require("certificate", fields.string, "the path of a PEM file", "")
    key = inner.require("key", fields.string, "the path of a PEM file", "")
    inner.finish()
    return TlsConfig(certificate=resolve(certificate), key=resolve(key))


def listen_unix(
    mistakes: Mistakes, path: str, value: Any, resolve: Callable[[str], Path]
) -> tuple[UnixAddress, ...]:
    """A path, a table `{ path, mode }`, or an array of them."""
    if value is None or value == "none":
        return ()
    single = isinstance(value, str) or (fields.is_table(value) and value["path"] is not None)
    what = 'a path, { path = "…", mode = "0660" }, or an array of them'
    entries = [(path, value)] if single else [*fields.items(mistakes, path, value, what)]
    found = []
    for at, entry in entries:
        mode = UnixAddress(Path()).mode
        if fields.is_table(entry):
            record = Record(mistakes, at, entry)
            name = record.require("path", fields.string, "a path", "")
            mode = record.read("mode", _mode, mode)
            record.finish()
        else:
            name = fields.string(mistakes, at, entry) or ""
        if name:
            found.append(UnixAddress(resolve(name), mode))
    if len({address.path for address in found}) < len(found):
        mistakes.add(path, "a socket is listed twice; remove one")
    return tuple(found)


def refuse_open_listeners(
    mistakes: Mistakes, config: AccessConfig, listen: Sequence[ListenAddress]
) -> None:
    """Without keys, only this machine may reach the gateway, unless the file says otherwise."""
    reachable = [str(address) for address in listen if not is_loopback(address.host)]
    if not reachable or config.api_keys or config.allow_unauthenticated:
        return
    mistakes.add(
        "server",
        f"other machines can reach {', '.join(reachable)}, but there are no api_keys. "
        "Add one of these two lines to server:",
        'api_keys = { "KEY" },            -- `trio-gateway key` makes one',
        "allow_unauthenticated = true,    -- anyone who reaches it may use it",
    )


def notes(
    config: AccessConfig, listen: Sequence[ListenAddress], tls: TlsConfig | None
) -> list[str]:
    """Remarks for the log."""
    found = [
        f"server.api_keys[{index}]: a key of fewer than {KEY_GOOD_LENGTH} characters can be "
        "guessed; `trio-gateway key` makes a good key"
        for index, key in enumerate(config.api_keys, start=1)
        if len(key.secret) < KEY_GOOD_LENGTH
    ]
    if config.api_keys and config.allow_unauthenticated:
        found.append("server.allow_unauthenticated has no effect, as there are api_keys")
    reachable = [str(address) for address in listen if not is_loopback(address.host)]
    if config.api_keys and reachable and tls is None:
        found.append(
            f"server.api_keys: keys sent to {', '.join(reachable)} can be read on the network; "
            "set server.tls, or put a proxy with TLS in front"
        )
    return found


def with_known_models(
    mistakes: Mistakes,
    config: AccessConfig,
    models: Sequence[ModelConfig],
    choices: Sequence[ChoiceConfig] = (),
    *,
    more: bool = False,
) -> AccessConfig:
    """With the models of each key by their names, where the file may have aliases, and `:latest`
    or not as in requests. A choice stands for all its models. `more`: other gateways have models
    as well, which nobody knows yet."""
    if not models and not more:  # that is an error of its own
        return config
    names = words_of(choices) | {
        word: frozenset([model.name]) for model in models for word in (model.name, *model.aliases)
    }
    names = {_with_or_without_latest(word): name for word, name in names.items()} | names
    keys = []
    for key in config.api_keys:
        if key.models is not None:
            for word in () if more else sorted(key.models - names.keys()):
                hint = fields.nearest(word, names)
                at = f"server.api_keys {fields.show(key.name)}.models"
                mistakes.add(at, f"no model {fields.show(word)}{hint}")
            known = frozenset[str]().union(*(names.get(w, {w}) for w in key.models))
            key = msgspec.structs.replace(key, models=known)
        keys.append(key)
    return msgspec.structs.replace(config, api_keys=tuple(keys))


def _with_or_without_latest(name: str) -> str:
    """The other spelling of a name; see models/names.py."""
    return name.removesuffix(":latest") if name.endswith(":latest") else f"{name}:latest"


# -- readers ----------------------------------------------------------------------------------


def api_keys(mistakes: Mistakes, path: str, value: Any) -> tuple[ApiKey, ...] | None:
    what = "an array of keys, each a string or a table { key = …, name = …, … }"
    # No key of the table is shown: it may be an API key.
    if not fields.is_table(value):
        mistakes.add(path, f"expected {what}")
        return None
    if any(not isinstance(key, int) for key in value):
        hint = 'it needs another pair of braces: api_keys = { { key = "…", name = "…" } }'
        mistakes.add(path, f"expected {what}; {hint}")
        return None
    found = list[ApiKey]()
    for index, (at, entry) in enumerate(fields.items(mistakes, path, value, what), start=1):
        if isinstance(entry, str):
            key = ApiKey(name=f"key-{index}", secret=_secret(mistakes, at, entry) or "")
        elif fields.is_table(entry):
            key = _key(mistakes, at, entry, f"key-{index}")
        else:
            mistakes.expected(at, "a string or a table", entry)
            continue
        if any(key.name == other.name for other in found):
            what = f"another key has the name {fields.show(key.name)}; rename one of the two"
            mistakes.add(at, what)
        if key.secret and any(key.secret == other.secret for other in found):
            mistakes.add(at, "this key is listed twice; remove one")
        found.append(key)
    return tuple(found)


def _key(mistakes: Mistakes, path: str, table: Any, default_name: str) -> ApiKey:
    record = Record(mistakes, path, table, familiar_words.API_KEY)
    models = record.read("models", _models, None)
    key = ApiKey(
        name=record.read("name", fields.name, default_name),
        secret=record.require("key", _secret, "the key, or its hash from `trio-gateway key`", ""),
        models=models,
        priority=record.read("priority", _priority, Priority.INTERACTIVE),
        max_parallel=record.read("max_parallel", fields.positive_int, 0) or None,
        admin=record.read("admin", fields.boolean, False),
        metrics=record.read("metrics", fields.boolean, False),
        forwards=record.read("forwards", fields.boolean, False),
    )
    if models == frozenset() and not key.metrics:
        what = "expected at least one model; leave it out for a key that may use all"
        mistakes.add(record.field_path("models"), what)
    record.finish()
    return key


def _secret(mistakes: Mistakes, path: str, value: Any) -> str | None:
    if not isinstance(value, str):
        mistakes.expected(path, "a key, as a string", value)
    elif is_hash(value):
        try:
            parse_hash(value)
        except ValueError as error:
            mistakes.add(path, f"not a hash that `trio-gateway key` makes: {error}")
        else:
            return value
    elif not value or len(value) > KEY_MAX_LENGTH or not re.fullmatch(r"[!-~]+", value):
        what = f"a key of 1 to {KEY_MAX_LENGTH} visible ASCII characters, as it goes into a header"
        mistakes.add(path, f"expected {what}")
    else:
        return value
    return None


def _models(mistakes: Mistakes, path: str, value: Any) -> frozenset[str] | None:
    before = len(mistakes.lines)
    found = fields.names(mistakes, path, value)
    return frozenset(found) if found is not None and len(mistakes.lines) == before else None


def _priority(mistakes: Mistakes, path: str, value: Any) -> Priority | None:
    known = Priority.from_word(value) if isinstance(value, str) else None
    if known is None:
        mistakes.expected(path, " or ".join(f'"{known.word}"' for known in Priority), value)
    return known


def _hosts(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    what = 'a name or address with or without a port, such as "ai.example.org"'
    found = []
    for at, entry in fields.items(mistakes, path, value, "an array of host names"):
        if isinstance(entry, str) and _HOST.fullmatch(entry) and read_place(entry):
            found.append(entry.lower())
        else:
            mistakes.expected(at, what, entry)
    return tuple(found)


def _origins(mistakes: Mistakes, path: str, value: Any) -> tuple[str, ...] | None:
    what = (
        f'an origin such as "https://chat.example.org" (no path), "{LOCALHOST_PAGES}" for pages of '
        f'this machine, or "{ANY_ORIGIN}"'
    )
    found = []
    for at, entry in fields.items(mistakes, path, value, "an array of origins"):
        if isinstance(entry, str) and (entry in (ANY_ORIGIN, LOCALHOST_PAGES) or _is_origin(entry)):
            found.append(entry.lower())
        else:
            mistakes.expected(at, what, entry)
    return tuple(found)


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme in ("http", "https"):
        return bool(_HOST.fullmatch(parts.netloc) and read_place(parts.netloc)) and text.endswith(
            f"://{parts.netloc}"
        )
    return _SCHEME_ORIGIN.fullmatch(text) is not None


def _mode(mistakes: Mistakes, path: str, value: Any) -> int | None:
    if isinstance(value, str) and _MODE.fullmatch(value):
        return int(value, 8)
    mistakes.expected(path, 'permissions as text, such as "0600" or "0660"', value)
    return None


def _table(mistakes: Mistakes, path: str, value: Any) -> bool | None:
    if fields.is_table(value):
        return True
    mistakes.expected(path, "a table { certificate = …, key = … }", value)
    return None
