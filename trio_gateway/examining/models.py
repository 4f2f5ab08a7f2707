"""Findings about models: their files, their contexts, and what they can be asked. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trio_gateway.config.engine_args import EngineArgs, runs_elsewhere
from trio_gateway.config.schema import GatewayConfig, ModelConfig, VariantConfig
from trio_gateway.config.server_options import (
    CHAT_TEMPLATE,
    CHAT_TEMPLATE_FILE,
    DRAFT,
    MODEL,
    PROJECTOR,
)
from trio_gateway.examining.finding import Finding, error, note, warning
from trio_gateway.examining.seen import Seen, SeenFile
from trio_gateway.gguf.chat_template import knows_tools
from trio_gateway.gguf.shards import files_of_model

_LONGER = ("--rope", "--yarn", "--override-kv")  # such arguments make more of a model's context
_SEEING = ("vl", "vlmoe")  # ends of the architectures that are made for it: qwen2vl


def model_file(variant: VariantConfig) -> Path | None:
    """The GGUF file that an engine of it loads, on this machine; None: not known."""
    if not variant.has_process or runs_elsewhere(variant.binary):
        return None
    given = variant.engine_args.value(MODEL)
    return variant.workdir / given if given else None


def files_of(model: ModelConfig) -> dict[Path, str]:
    """All files of it that have to be whole, and what each is to it."""
    if not model.engine.has_server_options:
        return {}
    found: dict[Path, str] = {}
    for variant in model.variants:
        if (path := model_file(variant)) is None:
            continue
        found |= dict.fromkeys(files_of_model(path), "its model file")
        for option in (PROJECTOR, DRAFT):
            if given := variant.engine_args.value(option):
                found[variant.workdir / given] = f"{option.name}:"
    return found


def on_models(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    for model in config.models:
        for path, what in files_of(model).items():
            if (file := seen.files.get(path)) is not None and file.fault:
                yield error(
                    f'model "{model.name}": {what} {path} {file.fault}', "download it again"
                )
        yield from _on_first_shards(model)
        yield from _on_contexts(model, seen)
        yield from _on_abilities(model, seen)


def _on_first_shards(model: ModelConfig) -> Iterator[Finding]:
    for path in dict.fromkeys(map(model_file, model.variants)):
        parts = [] if path is None else files_of_model(path)
        if len(parts) > 1 and path != parts[0]:
            yield error(
                f'model "{model.name}": its model file {path} is not the first of {len(parts)}',
                f"write {parts[0].name}",
            )


def _header_file(variant: VariantConfig, seen: Seen) -> SeenFile | None:
    path = model_file(variant)
    return None if path is None else seen.files.get(path)


def _on_contexts(model: ModelConfig, seen: Seen) -> Iterator[Finding]:
    if not model.engine.has_server_options:
        return
    for variant in model.variants:
        file = _header_file(variant, seen)
        trained = None if file is None or file.header is None else _trained(file)
        if not trained or variant.context <= trained or _is_stretched(variant.engine_args):
            continue
        yield warning(
            f'model "{model.name}", variant {variant.name}: its context of {variant.context} '
            f"tokens is more than the {trained} that the model was trained for",
            f"lower it to {trained}, or stretch the model (--rope-scaling yarn, --rope-scale)",
        )


def _trained(file: SeenFile) -> int | None:
    assert file.header is not None
    return file.header.number("context_length")


def _is_stretched(args: EngineArgs) -> bool:
    words = [word.replace("_", "-") for word in args.words]
    return any(word.startswith(_LONGER) for word in words) or bool(
        args.variable("LLAMA_ARG_ROPE_SCALING_TYPE") or args.variable("LLAMA_ARG_ROPE_SCALE")
    )


def _on_abilities(model: ModelConfig, seen: Seen) -> Iterator[Finding]:
    variant = model.variants[0]
    file = _header_file(variant, seen)
    if not model.engine.has_server_options or file is None or file.header is None:
        return
    args, header = variant.engine_args, file.header
    if args.is_embedding or header.is_embedding:
        return
    if file.projectors and not args.has_projector:
        beside = " and ".join(file.projectors)
        yield note(
            f'model "{model.name}": it takes no images, though {beside} lies beside its file',
            f'if that belongs to it, give its engine "--mmproj", "{file.projectors[0]}"',
        )
    elif header.architecture.endswith(_SEEING) and args.has_projector is False:
        yield note(
            f'model "{model.name}": it takes no images, though a {header.architecture} can look '
            "at some: its engine has no --mmproj",
            "download the projector that belongs to it",
        )
    if args.has(CHAT_TEMPLATE, CHAT_TEMPLATE_FILE):
        return
    template = header.tools_template or header.chat_template
    if not template:
        yield note(
            f'model "{model.name}": its file has no chat template, so chats may read as nonsense',
            "give its engine --chat-template-file",
        )
    elif not knows_tools(template):
        yield note(
            f'model "{model.name}": its chat template has no place for tools, which agents need',
            "give its engine a --chat-template-file that has one, or agents another model",
        )
