"""What one configuration has otherwise than another, as data and in words. Pure.

Values are never part of it, as some are secrets: a change names its keys.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from trio_gateway.config.schema import EngineTimeouts, GatewayConfig, ModelConfig, VariantConfig

# Keys of `server` that hold from the next start of the gateway on, and why.
_AT_START = {
    "kv_carryover": "engines that run save into the folder that there is",
    "clear_dumps_on_start": "it says what is done then",
}
# The same where other addresses cannot be opened: under the `hypercorn` command, whose they are.
_OF_LISTENERS = ("listen", "listen_unix", "tls")
_NOT_OURS = "the hypercorn command has addresses, TLS and limits of its own"
_LIMITS_OF_BODIES = ("body_timeout_s",)
_UNITS = ("_s", "_bytes")
# What a file calls otherwise than the structs of `schema.py` do.
_WRITTEN = {
    "listen": "listen_v4", "max_body_bytes": "max_body_size", "secret": "key",
    "max_header_bytes": "max_header_size",
    "health_check_s": "health_check_timeout", "startup_s": "engine_startup_timeout",
    "idle_s": "engine_idle_timeout", "memory_auto": "memory", "stop_s": "engine_stop_timeout",
}  # fmt: skip


class Kind(enum.Enum):
    ADDED = "+"
    REMOVED = "-"
    CHANGED = "~"
    LATER = "!"  # it takes effect at the next start of the gateway


class Change(msgspec.Struct, frozen=True):
    """`what`: `model NAME`, `variant MODEL:VARIANT`, `pool NAME`, `choice NAME`, `key NAME`,
    `peer NAME` or `server`. `keys`: those of a changed one that have other values. `replaces`: its
    engines are to be started anew. `why`: it takes effect later."""

    kind: Kind
    what: str
    keys: tuple[str, ...] = ()
    replaces: bool = False
    why: str = ""

    def __str__(self) -> str:
        keys = f": {', '.join(self.keys)}" if self.keys else ""
        if self.kind is Kind.LATER:
            return f"! {self.what}{keys} (takes effect at the next start: {self.why})"
        return f"{self.kind.value} {self.what}{keys}{' (starts anew)' if self.replaces else ''}"


def changes(
    before: GatewayConfig,
    after: GatewayConfig,
    started: GatewayConfig | None = None,
    *,
    moves: bool = True,
) -> tuple[Change, ...]:
    """In the order of a file: the server, its keys, pools, models with their variants, choices.
    `started`: what the gateway began with, if that is another than `before`. `moves`: other
    addresses can be opened while it runs."""
    return (
        *_of_server(before, after, started or before, moves=moves),
        *_of_named("key", _keys(before), _keys(after)),
        *_of_named("pool", before.pools, after.pools),
        *_of_named("peer", _peers(before), _peers(after)),
        *_of_models(before, after),
        *_of_named("choice", _choices(before), _choices(after)),
    )


def is_started_otherwise(
    model: ModelConfig, variant: VariantConfig, now: ModelConfig, variant_now: VariantConfig
) -> bool:
    """Whether an engine that runs is another than one that would be started now.

    Times, what is said of its memory, and how it is asked to stop hold for those that run as well;
    so does all that a model has for its requests."""
    return _start_of(model, variant) != _start_of(now, variant_now)


def _start_of(model: ModelConfig, variant: VariantConfig) -> tuple[object, ...]:
    started = msgspec.structs.replace(
        variant,
        timeouts=EngineTimeouts(),
        memory_bytes=None,
        estimated_memory_bytes=None,
        load_time_s=None,
        stop_command=(),
    )
    return started, model.engine, model.kv_carryover, model.kv_conversations


def _of_server(
    before: GatewayConfig, after: GatewayConfig, started: GatewayConfig, *, moves: bool
) -> Iterator[Change]:
    old, new, first = before.server, after.server, started.server

    def is_later(name: str) -> bool:
        return name in _AT_START or (name in _OF_LISTENERS and not moves)

    now = [name for name in _different(old, new) if not is_later(name)]
    now = [name for name in now if name not in ("access", "limits")]
    now += [name for name in _different(old.access, new.access) if name != "api_keys"]
    limits = _different(old.limits, new.limits)
    now += [name for name in limits if moves or name in _LIMITS_OF_BODIES]
    if now:
        yield Change(Kind.CHANGED, "server", _as_written(now))
    changed = _different(first, new)
    for name, why in _AT_START.items():
        if name in changed:
            yield Change(Kind.LATER, "server", _as_written([name]), why=why)
    if moves:
        return
    later = [name for name in changed if name in _OF_LISTENERS]
    limits = _different(first.limits, new.limits)
    later += [name for name in limits if name not in _LIMITS_OF_BODIES]
    if later:
        yield Change(Kind.LATER, "server", _as_written(later), why=_NOT_OURS)


def _of_models(before: GatewayConfig, after: GatewayConfig) -> Iterator[Change]:
    old = {model.name: model for model in before.models}
    new = {model.name: model for model in after.models}
    for name in old:
        if name not in new:
            yield Change(Kind.REMOVED, f"model {name}")
    for name, model in new.items():
        if name not in old:
            yield Change(Kind.ADDED, f"model {name}")
        else:
            yield from _of_model(old[name], model)


def _of_model(old: ModelConfig, new: ModelConfig) -> Iterator[Change]:
    variants = {variant.name: variant for variant in old.variants}
    keys = [name for name in _different(old, new) if name != "variants"]
    started = {variant.name: variant for variant in new.variants}
    both = [name for name in started if name in variants]
    replaces = any(is_started_otherwise(old, variants[name], new, variants[name]) for name in both)
    if keys:
        yield Change(Kind.CHANGED, f"model {new.name}", _as_written(keys), replaces)
    for name in variants:
        if name not in started:
            yield Change(Kind.REMOVED, f"variant {new.name}:{name}")
    for name, variant in started.items():
        what = f"variant {new.name}:{name}"
        if name not in variants:
            yield Change(Kind.ADDED, what)
        elif different := _different(variants[name], variant):
            anew = is_started_otherwise(new, variants[name], new, variant)
            yield Change(Kind.CHANGED, what, _as_written(different), anew)


def _of_named(
    what: str, old: Mapping[str, msgspec.Struct], new: Mapping[str, msgspec.Struct]
) -> Iterator[Change]:
    for name in old:
        if name not in new:
            yield Change(Kind.REMOVED, f"{what} {name}")
    for name, value in new.items():
        if name not in old:
            yield Change(Kind.ADDED, f"{what} {name}")
        elif different := _different(old[name], value):
            yield Change(Kind.CHANGED, f"{what} {name}", _as_written(different))


def _peers(config: GatewayConfig) -> dict[str, msgspec.Struct]:
    return {peer.name: peer for peer in config.peers}


def _keys(config: GatewayConfig) -> dict[str, msgspec.Struct]:
    return {key.name: key for key in config.server.access.api_keys}


def _choices(config: GatewayConfig) -> dict[str, msgspec.Struct]:
    return {choice.name: choice for choice in config.choices}


def _different(old: msgspec.Struct, new: msgspec.Struct) -> list[str]:
    names = [n for n in old.__struct_fields__ if getattr(old, n) != getattr(new, n)]
    for inner in ("timeouts", "options"):
        if inner in names:
            names.remove(inner)
            names += _different(getattr(old, inner), getattr(new, inner))
    return names


def _as_written(names: Sequence[str]) -> tuple[str, ...]:
    """As a configuration file has these keys: without the units."""
    return tuple(dict.fromkeys(map(_word, names)))


def _word(name: str) -> str:
    if (written := _WRITTEN.get(name)) is not None:
        return written
    for unit in _UNITS:
        name = name.removesuffix(unit)
    return name
