"""The packaged model, and what the library `gguf` reads of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest

from trio_gateway.config.lua.presets import PresetError, preset


@pytest.fixture(scope="session")
def smollm2() -> Path:
    try:
        return Path(preset("models", "smollm2"))
    except PresetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def by_library(smollm2: Path) -> dict[str, Any]:
    """Its values by key; takes seconds."""
    fields = gguf.GGUFReader(smollm2).fields
    return {
        name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")
    }
