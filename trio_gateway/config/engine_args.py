"""Reading an engine's command line: `--opt value` or `--opt=value`, in all spellings of an option.

Of several, the last one wins, as llama-server reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# llama-server's options, in all their spellings.
MODEL = ("-m", "--model")
CONTEXT = ("-c", "--ctx-size")
PARALLEL = ("-np", "--parallel")
GPU_LAYERS = ("-ngl", "--gpu-layers", "--n-gpu-layers")
PROJECTOR = ("-mm", "--mmproj")
DRAFT = ("-md", "--model-draft")
UNIFIED_KV = ("-kvu", "--kv-unified")
EMBEDDING = ("--embedding", "--embeddings", "--rerank", "--reranking")
SLOT_SAVE_PATH = ("--slot-save-path",)

CONTEXT_STEP = 256  # tokens: llama.cpp rounds a context up to it

_SPLIT = re.compile(r"(?P<start>.*)-[0-9]{5}-of-(?P<count>[0-9]{5})\.gguf")


def has_option(args: Sequence[str], names: Sequence[str]) -> bool:
    return any(arg.partition("=")[0] in names for arg in args)


def option(args: Sequence[str], names: Sequence[str]) -> str | None:
    """The option's value, or None without one."""
    found = None
    for index, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if arg in names and index + 1 < len(args):
            found = args[index + 1]
        elif equals and name in names:
            found = value
    return found


def files_of_model(path: Path) -> list[Path]:
    """The file, or all files of a model that was split."""
    split = _SPLIT.fullmatch(path.name)
    if split is None:
        return [path]
    start, count = split["start"], split["count"]
    return [path.with_name(f"{start}-{i:05d}-of-{count}.gguf") for i in range(1, int(count) + 1)]
