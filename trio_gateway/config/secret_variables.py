"""Which variables of the environment hold keys: those that a configuration reads for one. Pure.

A program may do anything with what `env()` gives it, so the values tell, not the program: one that
is a key, or a part of one, or has one in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trio_gateway.config.engine_key import configured_key
from trio_gateway.config.schema import ModelConfig, PeerConfig, ServerConfig

PART_MIN = 6  # characters; fewer may be in a key by chance


def secret_variables(
    read: Mapping[str, str],
    server: ServerConfig,
    models: Sequence[ModelConfig],
    peers: Sequence[PeerConfig] = (),
) -> frozenset[str]:
    """The names of those that hold a key of this configuration, the gateway's or an engine's.

    Args:
        read: what the configuration has read of the environment.
    """
    keys = {*keys_of(server, models, peers)}
    return frozenset(name for name, value in read.items() if any(_holds(value, k) for k in keys))


def keys_of(
    server: ServerConfig, models: Sequence[ModelConfig], peers: Sequence[PeerConfig] = ()
) -> Iterator[str]:
    """The keys, or hashes of keys, that the configuration itself holds."""
    for key in server.access.api_keys:
        yield key.secret
    if server.traces is not None:
        yield from (header.reveal() for header in server.traces.headers.values())
    yield from (p.options.api_key.reveal() for p in peers if p.options.api_key is not None)
    for model in models:
        for variant in model.variants:
            found = configured_key(variant, model.engine.key_variables)
            if found is not None and found.secret is not None:
                yield found.secret.reveal()


def _holds(value: str, key: str) -> bool:
    value = value.strip()
    shorter, longer = sorted((value, key), key=len)
    return value == key or (len(shorter) >= PART_MIN and shorter in longer)
