"""The smallest configuration file, changed by some lines of Lua, or the mistakes found in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.schema import (
    GatewayConfig,
)

SMALLEST = """
server = {}
models = {
  {
    name = "m",
    engine = presets.engines.llamacpp,
    variants = { { binary = "bin/llama-server", args = { "-m", "m.gguf" }, context = 4096 } },
  },
}
local model = models[1]
local variant = model.variants[1]
"""


def load(folder: Path, source: str) -> GatewayConfig:
    path = folder / "gateway.lua"
    path.write_text(source, encoding="utf-8")
    return ConfigLoader(path).load()


def smallest(folder: Path, changes: str = "") -> GatewayConfig:
    """A configuration with one model and one variant, after some lines of Lua."""
    return load(folder, SMALLEST + changes)


def mistakes(folder: Path, changes: str, before: str = SMALLEST) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, before + changes)
    start = f"{folder}/gateway.lua: "
    assert all(line.startswith(start) for line in caught.value.mistakes)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return [line.removeprefix(start) for line in caught.value.mistakes]
