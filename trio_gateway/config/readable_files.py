"""Files with keys in plain text that other users of this machine can read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from trio_gateway.config.engine_key import configured_key
from trio_gateway.config.key_hash import is_hash
from trio_gateway.config.schema import GatewayConfig, VariantConfig

_READ_MAX_BYTES = 64 << 20  # as much as a configuration may have
_NAMES_A_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_SECRET_MIN_LENGTH = 4  # anything shorter is in every file


def readable_secrets(config: GatewayConfig) -> list[str]:
    """A warning for each file of the configuration that has keys in it and can be read by others,
    and for such a key of TLS. No key is shown. Looks at files."""
    if os.name != "posix":
        return []
    secrets = [*_secrets(config)]
    found = [_warning_of(path, secrets) for path in dict.fromkeys(config.files or (config.source,))]
    tls = config.server.tls
    if tls is not None and (readers := _readers(tls.key)) is not None:
        found.append(f"server.tls.key: {tls.key} can be read by {readers}; `chmod 600` it")
    return [warning for warning in found if warning is not None]


def _warning_of(path: Path, secrets: Sequence[tuple[str, str]]) -> str | None:
    readers = _readers(path)
    if readers is None or not secrets:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(_READ_MAX_BYTES)
    except OSError:
        return None
    where = dict.fromkeys(place for place, secret in secrets if secret.encode() in data)
    if not where:
        return None
    return (
        f"{path} can be read by {readers} and has keys in plain text ({', '.join(where)}): "
        "`chmod 600` it, or take them from env(…); for clients, use hashes of `trio-gateway key`"
    )


def _readers(path: Path) -> str | None:
    """Who can read a file besides its owner; None: nobody, or there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    if found.st_mode & stat.S_IROTH:
        return "every user of this machine"
    # A service reads what is root's through its group.
    if found.st_mode & stat.S_IRGRP and found.st_uid == os.geteuid():
        return "its group"
    return None


def _secrets(config: GatewayConfig) -> Iterator[tuple[str, str]]:
    """Where keys are given, and the keys."""
    for key in config.server.access.api_keys:
        if not is_hash(key.secret) and len(key.secret) >= _SECRET_MIN_LENGTH:
            yield f'server.api_keys "{key.name}"', key.secret
    if config.server.traces is not None:
        for header in config.server.traces.headers.values():
            if len(header.reveal()) >= _SECRET_MIN_LENGTH:
                yield "server.traces.headers", header.reveal()
    for peer in config.peers:
        if (given := peer.options.api_key) and len(given.reveal()) >= _SECRET_MIN_LENGTH:
            yield f'models "{peer.name}"', given.reveal()
    for model in config.models:
        for variant in model.variants:
            for secret in _secrets_of(variant, model.engine.key_variables):
                if len(secret) >= _SECRET_MIN_LENGTH:
                    yield f'model "{model.name}"', secret


def _secrets_of(variant: VariantConfig, variables: Sequence[str]) -> Iterator[str]:
    key = configured_key(variant, variables)
    if key is not None and key.secret is not None:
        yield key.secret.reveal()
    yield from (value for name, value in variant.env.items() if _NAMES_A_SECRET.search(name))
