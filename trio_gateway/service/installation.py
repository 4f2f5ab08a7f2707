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
# For caches that are saved, and all else that ends after the engines.
BEYOND_ENGINES_S = 20.0
# Where programs, libraries, models and folders are, and which devices engines see. All else of an
# environment would be a surprise, and keys are not for a file that others can read.
_KEPT = (
    "PATH", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME",
    "XDG_DATA_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION", "GGML_VK_VISIBLE_DEVICES",
    "ONEAPI_DEVICE_SELECTOR", "HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS",
)  # fmt: skip
# They take the rights of another user for a moment, to make a container.
_NEED_RIGHTS = frozenset({"podman", "apptainer", "singularity", "toolbox", "distrobox", "sudo"})
# What `uvx` and `pipx run` make, and remove some day.
_PASSING = re.compile(
    r"/(uv/(archive-v\d+|environments-v\d+|builds-v\d+)|pipx/\.cache|\.cache/pipx)/"
)


class Unsuitable(Exception):
    """No service can run this; the message says why, and what to do instead."""


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """`command`: the program and its arguments. `folder`: where it runs. `environment`: what it
    gets besides what services get. `secrets`: a file with more, which may be missing. `written`:
    where its configuration has it write. `stop_s`: how long a stop may take. `needs_rights`: the
    programs of engines that take rights which it has not."""

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    secrets: Path
    written: tuple[Path, ...]
    stop_s: float
    needs_rights: tuple[str, ...] = ()


def installation(
    config: GatewayConfig, name: str, *, watch: bool, environ: Mapping[str, str]
) -> Installation:
    """Of this Python, whichever tool has made its environment.

    Raises:
        Unsuitable
    """
    source = Path(os.path.abspath(config.source))
    written = _written(config)
    for path in (sys.executable, str(source), *map(str, written)):
        if not path.isprintable():
            raise Unsuitable(f"no service's file can have {path!r} in it: rename it")
    # Not resolved: an environment's `python` is a link, and knows its environment by its own path.
    command = (sys.executable, "-m", "trio_gateway", "serve", "-c", str(source))
    return Installation(
        name=name,
        command=(*command, "--watch") if watch else command,
        folder=source.parent,
        environment={name: environ[name] for name in _KEPT if _is_line(environ.get(name))},
        secrets=source.with_suffix(".env"),
        written=written,
        stop_s=longest_stop_s(config),
        needs_rights=_needs_rights(config),
    )


def _is_line(value: str | None) -> bool:
    return bool(value) and str(value).isprintable()


def check_lasting(python: str = sys.executable) -> None:
    """
    Raises:
        Unsuitable: this installation is gone some day.
    """
    if _PASSING.search(python):
        raise Unsuitable(
            f"this installation is there for one run ({python}); install trio-gateway first, with "
            "`uv tool install` or `pipx install`"
        )


def longest_stop_s(config: GatewayConfig) -> float:
    """The grace of answers, then the engines' own time to end, and what is written after that."""
    stops = (variant.timeouts.stop_s for model in config.models for variant in model.variants)
    return config.server.shutdown_grace_s + max(stops, default=0.0) + BEYOND_ENGINES_S


def _needs_rights(config: GatewayConfig) -> tuple[str, ...]:
    variants = (variant for model in config.models for variant in model.variants)
    commands = (
        command[0]
        for v in variants
        for command in ((v.binary,), v.stop_command, *(w.command for w in v.options.ways_to_wake))
        if command
    )
    programs = map(os.path.basename, commands)
    return tuple(dict.fromkeys(program for program in programs if program in _NEED_RIGHTS))


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
