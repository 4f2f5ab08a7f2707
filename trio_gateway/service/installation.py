"""Installation: what a service runs, of this installation and a configuration. Pure."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from trio_gateway.config.schema import GatewayConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# After the grace engines have their own time to end, see `stop_timeout` of a variant.
BEYOND_GRACE_S = 30.0
# Programs that engines and rules look for are on it; all else of an environment is a surprise.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """`command`: the program and its arguments. `folder`: where it runs. `environment`: what it
    gets besides what services get. `secrets`: a file with more, which may be missing. `written`:
    where its configuration has it write. `grace_s`: how long a stop may take."""

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    secrets: Path
    written: tuple[Path, ...]
    grace_s: float


def installation(
    config: GatewayConfig, name: str, *, watch: bool, environ: Mapping[str, str]
) -> Installation:
    """Of this Python, whichever tool has made its environment."""
    source = Path(os.path.abspath(config.source))
    # Not resolved: an environment's `python` is a link, and knows its environment by its own path.
    command = (sys.executable, "-m", "trio_gateway", "serve", "-c", str(source))
    return Installation(
        name=name,
        command=(*command, "--watch") if watch else command,
        folder=source.parent,
        environment={name: environ[name] for name in _KEPT if environ.get(name)},
        secrets=source.with_suffix(".env"),
        written=_written(config),
        grace_s=config.server.shutdown_grace_s + BEYOND_GRACE_S,
    )


def _written(config: GatewayConfig) -> tuple[Path, ...]:
    server = config.server
    found = [address.path.parent for address in server.listen_unix]
    if server.dumps_dir is not None:
        found.append(server.dumps_dir)
    if server.history.file is not None:
        found.append(server.history.file.parent)
    if server.kv_carryover is not None and server.kv_carryover.directory is not None:
        found.append(server.kv_carryover.directory)
    return tuple(dict.fromkeys(Path(os.path.abspath(folder)) for folder in found))
