"""Paths in a configuration: relative ones begin at the folder of its file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def resolve(folder: Path, path: str) -> Path:
    """Relative paths begin at the folder of the configuration."""
    return folder / os.path.expanduser(path)


def resolve_binary(folder: Path, binary: str) -> str:
    """A bare name is looked up on PATH; whether the file exists is not checked here."""
    if binary and "/" not in binary and os.sep not in binary:
        return shutil.which(binary) or binary
    return str(resolve(folder, binary)) if binary else ""
