"""Which configuration is used when: the command line, the environment, the folder, the default."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.schema import GatewayConfig

VARIABLE = "TRIO_GATEWAY_CONFIG"
LOCAL_NAME = "gateway.lua"


def locate_config(given: Path | None) -> tuple[Path, str]:
    """The file to load, and why that one, in words."""
    if given is not None:
        return given, "given by -c"
    if from_environment := os.environ.get(VARIABLE):
        return Path(from_environment), f"given by ${VARIABLE}"
    if Path(LOCAL_NAME).is_file():
        return Path(LOCAL_NAME), "found in this folder"
    return embedded_config(), f"the built-in one: no -c, no ${VARIABLE}, no {LOCAL_NAME} here"


def embedded_config() -> Path:
    """`embedded.lua`: inside the installed package, or in a source tree's `config/`."""
    packaged = Path(__file__).with_name("embedded.lua")
    if packaged.is_file():
        return packaged
    return Path(__file__).parents[2] / "config" / "embedded.lua"


def load_config(given: Path | None) -> tuple[GatewayConfig, str]:
    """The checked configuration, and why it is this one.

    Raises:
        ConfigError
    """
    path, why = locate_config(given)
    if (fault := _fault(path)) is not None:
        raise ConfigError([f"{path}: {fault} ({why})"])
    return ConfigLoader(path).load(), why


def _fault(path: Path) -> str | None:
    """Why there is nothing to read at this path, as far as can be seen. A pipe can be read."""
    try:
        return "not a file" if stat.S_ISDIR(path.stat().st_mode) else None
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except OSError:
        return None  # its reader says why it cannot
