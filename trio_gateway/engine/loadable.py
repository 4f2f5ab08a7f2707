"""What the programs of engines say to `--version`, and whether they can be loaded at all."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from trio_gateway.config.engine_args import runs_elsewhere
from trio_gateway.config.schema import GatewayConfig, VariantConfig
from trio_gateway.engine.process.groups import kill_group
from trio_gateway.engine.process.missing_library import missing_library
from trio_gateway.environment import inherited

_LIMIT_S = 3.0  # one that takes longer has been loaded
_READ_CHARACTERS = 20_000
_AT_A_TIME = 8
# What runs the real program: whether these can be loaded says nothing of it.
_RUNNERS = re.compile(r"(?:ba|da|z)?sh|env|nice|taskset|numactl|python[0-9.]*|node|perl|ruby")
_ELF, _MACH_O = b"\x7fELF", (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")

ProgramKey = tuple[str, str, tuple[tuple[str, str], ...]]


class Said(NamedTuple):
    """`status` None: it did not end in time, or could not be started, for the reason in `text`."""

    status: int | None
    text: str = ""


class Unloadable(NamedTuple):
    """A model whose engines cannot start. `text`: why, and what to do."""

    text: str
    model: str


def ask_programs(config: GatewayConfig, *question: str) -> dict[ProgramKey, Said]:
    """What each program says to `--version`, or to another question. Each is run once, several at a
    time; a script only if it stands for a llama-server, as others may not know `--version`.
    Blocks: for some 10 ms, or as long as the slowest of them takes."""
    programs = {
        program_of(variant): variant
        for model in config.models
        for variant in model.variants
        if variant.has_process and _can_be_asked(variant.binary)
    }
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        asked = partial(_ask, secrets=config.secret_variables, question=question or ("--version",))
        return dict(zip(programs, pool.map(asked, programs.values()), strict=True))


def cannot_load(
    config: GatewayConfig, said: Mapping[ProgramKey, Said] | None = None
) -> list[Unloadable]:
    """The models whose program lacks a library, and which one. `said`: by `ask_programs`."""
    said = ask_programs(config) if said is None else said
    lacks = {key: missing_library(found.text) for key, found in said.items() if found.status}
    found = dict[Unloadable, None]()
    for model in config.models:
        for variant in model.variants:
            if (why := lacks.get(program_of(variant))) is not None:
                text = f'model "{model.name}": binary: {variant.binary} cannot be loaded: {why}'
                found[Unloadable(text, model.name)] = None
    return [*found]


def program_of(variant: VariantConfig) -> ProgramKey:
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


def _ask(variant: VariantConfig, *, secrets: Collection[str], question: Sequence[str]) -> Said:
    env = inherited(secrets, variant.inherits) | dict(variant.env)
    try:
        process = subprocess.Popen(
            [variant.binary, *question],
            cwd=variant.workdir,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return Said(None, error.strerror or repr(error))
    with process:
        try:
            output, _ = process.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
            return Said(None)
    return Said(process.returncode, output[:_READ_CHARACTERS].decode("utf-8", "replace"))
