"""Identity: all that decides what is measured of a variant. What is measured holds for that only.

The model's files, the program, its arguments and variables, and the machine. What an engine says of
its build is known only once it runs, so that is beside what was measured (`Entry.build`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

import msgspec

from trio_gateway.config.engine_args import runs_elsewhere
from trio_gateway.config.schema import ModelConfig, VariantConfig
from trio_gateway.config.server_options import (
    API_KEY,
    DRAFT,
    LORA,
    MODEL,
    PROJECTOR,
    canonical,
)
from trio_gateway.finding.engines import EMBEDDED_COMMAND
from trio_gateway.gguf.shards import files_of_model
from trio_gateway.hardware.machine import this_machine

_DIGEST_BYTES = 16
_CHOSEN_DEVICES = re.compile(r"\w+_VISIBLE_DEVICES|ONEAPI_DEVICE_SELECTOR")


def identity_of(model: ModelConfig, variant: VariantConfig, secrets: Collection[str]) -> str:
    """A digest. Blocks: looks at files, without reading them.

    Args:
        secrets: names of variables with keys in them, which decide nothing.
    """
    parts = [
        model.engine.value,
        *_program(variant),
        *_without_keys(variant.args),
        str(variant.workdir),
        f"{variant.devices} devices",
        *(f"{k}={v}" for k, v in sorted(_variables(variant).items()) if k not in secrets),
        *variant.options.urls,
        *_cluster(variant),
        variant.options.served_name or "",
        *_files(variant),
        *_machine(),
        *(f"{k}={v}" for k, v in sorted(os.environ.items()) if _CHOSEN_DEVICES.fullmatch(k)),
    ]
    text = msgspec.json.encode(parts)
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()


def _variables(variant: VariantConfig) -> dict[str, str]:
    given = {**variant.inherited_options, **variant.env}
    return {name: value for name, value in given.items() if name not in API_KEY.variables}


def _cluster(variant: VariantConfig) -> Iterator[str]:
    if (cluster := variant.options.cluster) is not None:
        yield from (cluster.address, variant.binary, str(cluster.replicas))
        yield from (f"{name}={amount}" for name, amount in sorted(cluster.resources.items()))


def _program(variant: VariantConfig) -> Iterator[str]:
    if not variant.has_process:
        return
    yield variant.binary
    found = shutil.which(variant.binary)
    yield from _file(Path(found)) if found is not None else ()
    if Path(variant.binary).name == EMBEDDED_COMMAND:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield importlib.metadata.version("xllamacpp")


def _without_keys(args: Collection[str]) -> Iterator[str]:
    is_key = False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if is_key:
            is_key = False
        elif canonical(name) in API_KEY.spellings:
            is_key = not equals
        else:
            yield arg


def _files(variant: VariantConfig) -> Iterator[str]:
    if not variant.has_process or runs_elsewhere(variant.binary):
        return
    args = variant.engine_args
    if given := args.value(MODEL):
        for path in files_of_model(variant.workdir / given):
            yield from _file(path)
    for option in (PROJECTOR, DRAFT):
        if given := args.value(option):
            yield from _file(variant.workdir / given)
    for name in (args.value(LORA) or "").split(","):
        if name.strip():
            yield from _file(variant.workdir / name.strip())


def _file(path: Path) -> Iterator[str]:
    try:
        real = path.resolve()
        status = real.stat()
    except (OSError, RuntimeError, ValueError):  # a loop of links; a name that cannot be one
        yield f"{path}: missing"
    else:
        yield f"{real}:{status.st_size}:{status.st_mtime_ns}"


@lru_cache(1)
def _machine() -> tuple[str, ...]:
    """What it computes with. The first call loads the drivers' libraries."""
    devices = this_machine().read().devices
    found = [f"{d.id} {d.name} {round(d.total_bytes / 2**30)} GiB" for d in devices]
    return platform.machine(), f"{os.cpu_count()} processors", *found
