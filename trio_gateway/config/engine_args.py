"""Reading an engine's command line: `--opt value` or `--opt=value`, in all spellings of an option.

Of several, the last one wins, and `--ctx_size` is `--ctx-size`, as llama-server reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
CACHE_RAM = ("-cram", "--cache-ram")
CACHE_RAM_VARIABLE = "LLAMA_ARG_CACHE_RAM"
SWA_FULL = "--swa-full"
SWA_FULL_VARIABLE = "LLAMA_ARG_SWA_FULL"
API_KEY = ("--api-key", "--api_key")
API_KEY_FILE = ("--api-key-file", "--api_key_file")

CONTEXT_STEP = 256  # tokens: llama.cpp rounds a context up to it

# In the words of a shell's or a container's command line, too.
_SWA_FULL_WORD = re.compile(rf"(?<![^\s\"'=]){SWA_FULL}(?![^\s\"'=;&|])")
_SWA_FULL_SET = re.compile(rf"\b{SWA_FULL_VARIABLE}=(\w+)")
_NO = frozenset({"", "0", "false", "off", "disabled"})
_SPLIT = re.compile(r"(?P<start>.*)-[0-9]{5}-of-(?P<count>[0-9]{5})\.gguf")


def has_option(args: Sequence[str], names: Sequence[str]) -> bool:
    return any(option_name(arg) in names for arg in args)


def option(args: Sequence[str], names: Sequence[str]) -> str | None:
    """The option's value, or None without one."""
    found = None
    for index, arg in enumerate(args):
        if option_name(arg) not in names:
            continue
        _, equals, value = arg.partition("=")
        if equals:
            found = value
        elif index + 1 < len(args):
            found = args[index + 1]
    return found


def swa_full(args: Sequence[str], env: Mapping[str, str]) -> str | None:
    """How an engine with these arguments and variables was told to keep all of the cache of a
    sliding window; None if it was not."""
    if any(_SWA_FULL_WORD.search(arg.replace("_", "-")) for arg in args):
        return SWA_FULL
    in_args = (found[1] for arg in args for found in _SWA_FULL_SET.finditer(arg))
    values = (env.get(SWA_FULL_VARIABLE, ""), *in_args)
    return SWA_FULL_VARIABLE if any(value.lower() not in _NO for value in values) else None


def option_name(arg: str) -> str:
    """Of `--opt` or `--opt=value`, as llama-server looks it up."""
    name = arg.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name


def files_of_model(path: Path) -> list[Path]:
    """The file, or all files of a model that was split."""
    split = _SPLIT.fullmatch(path.name)
    if split is None:
        return [path]
    start, count = split["start"], split["count"]
    return [path.with_name(f"{start}-{i:05d}-of-{count}.gguf") for i in range(1, int(count) + 1)]
