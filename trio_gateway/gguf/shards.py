"""The files of a model that was split: `NAME-00001-of-00003.gguf`, and so on. Pure."""

from __future__ import annotations

import re
from pathlib import Path

_SPLIT = re.compile(r"(?P<start>.*)-[0-9]{5}-of-(?P<count>[0-9]{5})\.gguf")


def files_of_model(path: Path) -> list[Path]:
    """The file, or all files of a model that was split."""
    split = _SPLIT.fullmatch(path.name)
    if split is None:
        return [path]
    start, count = split["start"], split["count"]
    return [path.with_name(f"{start}-{i:05d}-of-{count}.gguf") for i in range(1, int(count) + 1)]
