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

_MODELS = (PROJECTOR, DRAFT)
_NO_OTEL = (
    "no traces are sent without the extra `otel`: pip install '.[otel]', "
    "or pip install opentelemetry-proto"
)


class Missing(NamedTuple):
    """`model`: the one that cannot start without it; None if all can."""

    text: str
    model: str | None = None


def missing(config: GatewayConfig) -> list[Missing]:
    """Everything, one entry for the variants of a model that miss the same. Looks at files."""
    found = [entry for model in config.models for entry in _of_model(model)]
    if (tls := config.server.tls) is not None:
        for key, path in (("certificate", tls.certificate), ("key", tls.key)):
            if not path.is_file():
                found.append(Missing(f"server.tls.{key}: {path} does not exist"))
    if config.server.traces is not None and (lack := otel()) is not None:
        found.append(Missing(f"server.traces: {lack}"))
    return found


def otel() -> str | None:
    """What is missing to send spans; None: nothing."""
    try:
        is_there = importlib.util.find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:  # not even its parent
        is_there = False
    return None if is_there else _NO_OTEL


def _of_model(model: ModelConfig) -> Iterator[Missing]:
    lacks = dict[str, list[str]]()
    for variant in model.variants:
        if variant.has_process:
            for lack in _of_variant(model, variant):
                lacks.setdefault(lack, []).append(variant.name)
    for lack, variants in lacks.items():
        where = f'model "{model.name}"'
        if len(variants) < len(model.variants):
            where += f", variant {' and '.join(variants)}"
        yield Missing(f"{where}: {lack}", model.name)
    programs = [("stop_command", v.stop_command[0]) for v in model.variants if v.stop_command]
    if model.tokenization is not None:
        programs.append(("tokenization", model.tokenization.binary))
    for key, program in dict.fromkeys(programs):
        if why := _program(program):
            yield Missing(f'model "{model.name}": {key}: {why}')
    ca_files = {v.options.ca_file: None for v in model.variants if v.options.ca_file is not None}
    for path in ca_files:
        if not path.is_file():
            yield Missing(f'model "{model.name}": ca_file: {path} does not exist', model.name)


def _of_variant(model: ModelConfig, variant: VariantConfig) -> Iterator[str]:
    if lack := _program(variant.binary):
        yield f"binary: {lack}"
    elif not variant.workdir.is_dir():
        yield f"workdir: {variant.workdir} does not exist"
    if model.engine.kind != LLAMACPP.kind or runs_elsewhere(variant.binary):
        return
    args = variant.engine_args
    if model_file := args.value(MODEL):
        for part in files_of_model(variant.workdir / model_file):
            if lack := _gguf(part):
                yield f"its model file {lack}"
    for option in _MODELS:
        if (file := args.value(option)) and (lack := _gguf(variant.workdir / file)):
            yield f"{option.name}: {lack}"
    for option, files in _other_files(args):
        for file in files:
            if not (variant.workdir / file).is_file():
                yield f"{option.name}: {variant.workdir / file} does not exist"


def _other_files(args: EngineArgs) -> Iterator[tuple[ServerOption, list[str]]]:
    if file := args.value(CHAT_TEMPLATE_FILE):
        yield CHAT_TEMPLATE_FILE, [file]
    # Of each, several with commas between them.
    if adapters := args.value(LORA):
        yield LORA, [name for part in adapters.split(",") if (name := part.strip())]
    if scaled := args.value(LORA_SCALED):
        yield LORA_SCALED, [name for part in scaled.split(",") if (name := part.rpartition(":")[0])]


def _gguf(path: Path) -> str | None:
    """Why it cannot be a model's file; None if it can. Only its first bytes are read."""
    if not path.exists():
        return f"{path} does not exist"
    try:
        check_beginning(path)
    except BadGguf as error:
        return f"{path} {error}"
    return None


def _program(program: str) -> str | None:
    """Why it cannot be run; None if it can."""
    if shutil.which(program) is not None:
        return None
    if os.sep not in program:
        return f"{program} is not on PATH"
    if Path(program).is_file():
        return f"{program} is not executable"
    return f"{program} is a folder" if Path(program).is_dir() else f"{program} does not exist"
