"""Reads another program's configuration, whichever it is, and says it in this gateway's terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trio_gateway.converting.command import Trained
from trio_gateway.converting.description import VARIABLE, Description
from trio_gateway.converting.llama_swap import from_llama_swap
from trio_gateway.converting.preset_file import looks_like_presets, read_presets
from trio_gateway.converting.router_presets import from_router_presets
from trio_gateway.converting.yaml_text import read_yaml
from trio_gateway.gguf.header import read_header
from trio_gateway.gguf.metadata import BadGguf

MOST_BYTES = 4 * 1024**2


def described(
    text: str, name: str, environment: Mapping[str, str], trained: Trained
) -> Description:
    """`name`: of the file, whose ending may say what it is.

    Raises:
        NotConvertible: it is neither, or has something in it that its own program would not take.
    """
    text = text.removeprefix("\ufeff")
    ending = name.lower().rpartition(".")[2]
    if ending == "ini" or (ending not in ("yaml", "yml") and looks_like_presets(text)):
        return from_router_presets(read_presets(text), trained)
    return from_llama_swap(read_yaml(text), environment, trained)


def unset_variables(lua: str, text: str, environment: Mapping[str, str]) -> list[str]:
    """Variables that the configuration in `lua` reads and that are not set; `text` is what it was
    made from."""
    names = dict.fromkeys(VARIABLE.findall(text))
    return [name for name in names if name not in environment and f'env("{name}")' in lua]


def trained_context(path: str) -> int | None:
    """Of the model in a file of this machine."""
    try:
        header = read_header(Path(path))
    except (OSError, BadGguf, ValueError):
        return None
    return header.number("context_length")
