"""What a valid configuration names and this machine does not have: programs, models, certificates.

Not the loader's business: a file may be valid and meant for another machine. `check` makes an
error of it, `serve` a warning, as the other models can be served.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trio_gateway.config.engine_args import EngineArgs, runs_elsewhere
from trio_gateway.config.engine_types import LLAMACPP
from trio_gateway.config.schema import GatewayConfig, ModelConfig, VariantConfig
from trio_gateway.config.server_options import (
    CHAT_TEMPLATE_FILE,
    DRAFT,
    LORA,
    LORA_SCALED,
    MODEL,
    PROJECTOR,
    ServerOption,
)
from trio_gateway.gguf.metadata import BadGguf, check_beginning
from trio_gateway.gguf.shards import files_of_model

_CORRECT = "correct the path"
_AGAIN = "download it again, or correct the path"
_MODELS = (PROJECTOR, DRAFT)
_NO_OTEL = (
    "no traces are sent without the extra `otel`: pip install '.[otel]', "
    "or pip install opentelemetry-proto"
)


class Missing(NamedTuple):
    """`model`: the one that cannot start without it; None if all can. `cure`: what to do."""

    text: str
    model: str | None = None
    cure: str = _CORRECT


class _Lack(NamedTuple):
    text: str
    cure: str = _CORRECT


def missing(config: GatewayConfig) -> list[Missing]:
    """Everything, one entry for the variants of a model that miss the same. Looks at files."""
    found = [entry for model in config.models for entry in _of_model(model)]
    if (tls := config.server.tls) is not None:
        for key, path in (("certificate", tls.certificate), ("key", tls.key)):
            if not os.path.isfile(path):
                found.append(Missing(f"server.tls.{key}: {path} does not exist"))
    found += (
        Missing(f'models "{peer.name}": ca_file: {file} does not exist', None)
        for peer in config.peers
        if (file := peer.options.ca_file) is not None and not os.path.isfile(file)
    )
    found += (
        Missing(f'models "{peer.name}": wake_command: {why.text}', None, why.cure)
        for peer in config.peers
        for way in peer.options.ways_to_wake
        if way.command and (why := _program(way.command[0]))
    )
    if config.server.traces is not None and (lack := otel()) is not None:
        found.append(Missing(f"server.traces: {lack}", None, ""))
    return found


def otel() -> str | None:
    """What is missing to send spans; None: nothing."""
    try:
        is_there = importlib.util.find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:  # not even its parent
        is_there = False
    return None if is_there else _NO_OTEL


def _of_model(model: ModelConfig) -> Iterator[Missing]:
    lacks = dict[_Lack, list[str]]()
    for variant in model.variants:
        if variant.has_process:
            for lack in _of_variant(model, variant):
                lacks.setdefault(lack, []).append(variant.name)
    for lack, variants in lacks.items():
        where = f'model "{model.name}"'
        if len(variants) < len(model.variants):
            where += f", variant {' and '.join(variants)}"
        yield Missing(f"{where}: {lack.text}", model.name, lack.cure)
    programs = [("stop_command", v.stop_command[0]) for v in model.variants if v.stop_command]
    ways = (way for v in model.variants for way in v.options.ways_to_wake)
    programs += [("wake_command", way.command[0]) for way in ways if way.command]
    if model.tokenization is not None:
        programs.append(("tokenization", model.tokenization.binary))
    for key, program in dict.fromkeys(programs):
        if why := _program(program):
            yield Missing(f'model "{model.name}": {key}: {why.text}', None, why.cure)
    ca_files = {v.options.ca_file: None for v in model.variants if v.options.ca_file is not None}
    for path in ca_files:
        if not os.path.isfile(path):
            yield Missing(f'model "{model.name}": ca_file: {path} does not exist', model.name)


def _of_variant(model: ModelConfig, variant: VariantConfig) -> Iterator[_Lack]:
    if lack := _program(variant.binary):
        yield lack._replace(text=f"binary: {lack.text}")
    elif not os.path.isdir(variant.workdir):
        yield _Lack(f"workdir: {variant.workdir} does not exist")
    if model.engine.kind != LLAMACPP.kind or runs_elsewhere(variant.binary):
        return
    args = variant.engine_args
    if model_file := args.value(MODEL):
        for part in files_of_model(variant.workdir / model_file):
            if lack := _gguf(part):
                yield lack._replace(text=f"its model file {lack.text}")
    for option in _MODELS:
        if (file := args.value(option)) and (lack := _gguf(variant.workdir / file)):
            yield lack._replace(text=f"{option.name}: {lack.text}")
    for option, files in _other_files(args):
        for file in files:
            if not os.path.isfile(variant.workdir / file):
                yield _Lack(f"{option.name}: {variant.workdir / file} does not exist")


def _other_files(args: EngineArgs) -> Iterator[tuple[ServerOption, list[str]]]:
    if file := args.value(CHAT_TEMPLATE_FILE):
        yield CHAT_TEMPLATE_FILE, [file]
    # Of each, several with commas between them.
    if adapters := args.value(LORA):
        yield LORA, [name for part in adapters.split(",") if (name := part.strip())]
    if scaled := args.value(LORA_SCALED):
        yield LORA_SCALED, [name for part in scaled.split(",") if (name := part.rpartition(":")[0])]


def _gguf(path: Path) -> _Lack | None:
    """Why it cannot be a model's file; None if it can. Only its first bytes are read."""
    try:
        path.stat()
    except FileNotFoundError:
        return _Lack(f"{path} does not exist", "download it, or correct the path")
    except (OSError, ValueError) as error:  # a folder of somebody else, a name that cannot be one
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return _Lack(f"{path} cannot be read: {why}", "let this user read it, or correct the path")
    try:
        check_beginning(path)
    except BadGguf as error:
        return _Lack(f"{path} {error}", _AGAIN)
    return None


def _program(program: str) -> _Lack | None:
    """Why it cannot be run; None if it can."""
    if shutil.which(program) is not None:
        return None
    if os.sep not in program:
        return _Lack(f"{program} is not on PATH", "install it, or write its whole path")
    if os.path.isfile(program):
        return _Lack(f"{program} is not executable", f"chmod +x {program}")
    if os.path.isdir(program):
        return _Lack(f"{program} is a folder", "write the path of the program in it")
    return _Lack(f"{program} does not exist", "install it, or correct the path")
