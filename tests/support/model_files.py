"""Small GGUF files of any kind of model, with a few bytes of weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np


def write_model(
    path: Path,
    architecture: str = "llama",
    *,
    context: int | None = 8192,
    width: int = 64,
    weights: int = 64,
    template: str | None = None,
    extra: dict[str, Any] | None = None,
    vocabulary: int = 16,
    endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> Path:
    """`weights`: numbers in its one tensor; 0: none. `extra`: further keys; those that begin with a
    dot are the architecture's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture, endianess=endian)
    if context is not None:
        writer.add_context_length(context)
        writer.add_embedding_length(width)
        writer.add_block_count(2)
        writer.add_head_count(4)
    writer.add_token_list([f"t{i}" for i in range(vocabulary)])
    if template is not None:
        writer.add_chat_template(template)
    for key, value in (extra or {}).items():
        full = f"{architecture}{key}" if key.startswith(".") else key
        if isinstance(value, str):
            writer.add_string(full, value)
        elif isinstance(value, bool):
            writer.add_bool(full, value)
        else:
            writer.add_uint32(full, value)
    if weights:
        writer.add_tensor("token_embd.weight", np.ones(weights, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def grow(path: Path, size_bytes: int) -> Path:
    """Make it as large as a real one, without its blocks on the disk."""
    os.truncate(path, size_bytes)
    return path
