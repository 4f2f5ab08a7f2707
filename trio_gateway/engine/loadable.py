"""Whether the programs of engines can be loaded at all: their `--version` is asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from trio_gateway.config.engine_args import runs_elsewhere
from trio_gateway.config.schema import GatewayConfig, VariantConfig
from trio_gateway.engine.process.environment import inherited
from trio_gateway.engine.process.groups import kill_group
from trio_gateway.engine.process.missing_library import missing_library

_LIMIT_S = 3.0  # one that takes longer has been loaded
_READ_CHARACTERS = 20_000
_AT_A_TIME = 8
# What runs the real program: whether these can be loaded says nothing of it.
_RUNNERS = re.compile(r"(?:ba|da|z)?sh|env|nice|taskset|numactl|python[0-9.]*|node|perl|ruby")
_ELF, _MACH_O = b"\x7fELF", (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")

_Key = tuple[str, str, tuple[tuple[str, str], ...]]


class Unloadable(NamedTuple):
    """A model whose engines cannot start. `text`: why, and what to do."""

    text: str
    model: str


def cannot_load(config: GatewayConfig) -> list[Unloadable]:
    """The models whose program lacks a library, and which one. Runs each program once, several at a
    time; a script only if it stands for a llama-server, as others may not know `--version`.
    Blocks: for some 10 ms, or as long as the slowest of them takes."""
    programs = {
        _key_of(variant): variant
        for model in config.models
        for variant in model.variants
        if variant.has_process and _can_be_asked(variant.binary)
    }
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        said = pool.map(lambda variant: _said(variant, config.secret_variables), programs.values())
        lacks = {key: missing_library(text) for key, text in zip(programs, said, strict=True)}
    found = dict[Unloadable, None]()
    for model in config.models:
        for variant in model.variants:
            if (why := lacks.get(_key_of(variant))) is not None:
                text = f'model "{model.name}": binary: {variant.binary} cannot be loaded: {why}'
                found[Unloadable(text, model.name)] = None
    return [*found]


def _key_of(variant: VariantConfig) -> _Key:
    """What decides which libraries a variant's program finds."""
    return variant.binary, str(variant.workdir), tuple(sorted(variant.env.items()))


def _can_be_asked(binary: str) -> bool:
    found = shutil.which(binary)
    if found is None or runs_elsewhere(binary) or _RUNNERS.fullmatch(Path(binary).name):
        return False
    try:
        with open(found, "rb") as file:
            start = file.read(4)
    except OSError:
        return False
    return start == _ELF or start in _MACH_O or "llama-server" in Path(binary).name


def _said(variant: VariantConfig, secrets: Collection[str]) -> str:
    """What it printed, if it failed; empty otherwise."""
    env = inherited(secrets, variant.inherits) | dict(variant.env)
    try:
        process = subprocess.Popen(
            [variant.binary, "--version"],
            cwd=variant.workdir,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError:
        return ""
    with process:
        try:
            output, _ = process.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
            return ""
    return output[:_READ_CHARACTERS].decode("utf-8", "replace") if process.returncode else ""
