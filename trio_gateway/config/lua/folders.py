"""What a configuration asks of folders: `find_gguf`, which is answered here, and `discover`.

The helper process imports this with `program.py`: nothing but the standard library.
"""

from __future__ import annotations

import importlib
import os

TYPE_CHECKING = False  # typing's own takes 2 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def finder(remarks: list[str]) -> Callable[[str, str], tuple[str, str]]:
    """For `find_gguf`: the files, and their names. It adds to the remarks."""

    def find(folder: str, name: str) -> tuple[str, str]:
        module = importlib.import_module(
            "trio_gateway.finding.gguf_folder" if __package__ else "gguf_folder"
        )
        top = os.path.abspath(os.path.join(folder, os.path.expanduser(name)))
        models = module.Models(top)
        remarks.extend(models.remarks)
        return "\n".join(models.files), "\n".join(models.names)

    return find


def discoverer(lua: Any, ask: Callable[[dict[str, object]], Any]) -> Callable[..., Any]:
    """For `discover`: the parent looks for models, as it knows the hardware. Tables of them."""

    def discover(
        folder: str, folders: str, binary: str | None, memory: float | str | None, args: str
    ) -> Any:
        tops = [
            os.path.abspath(os.path.join(folder, os.path.expanduser(name)))
            for name in folders.split("\0")[:-1]
        ]
        if binary is not None and os.sep in binary:
            binary = os.path.abspath(os.path.join(folder, os.path.expanduser(binary)))
        wanted = {"folders": tops, "binary": binary, "memory": memory}
        found = ask({"discover": {**wanted, "args": args.split("\0")[:-1]}})
        return _lua_value(lua, found)

    return discover


def _lua_value(lua: Any, value: Any) -> Any:
    if isinstance(value, list):
        return lua.table_from([_lua_value(lua, item) for item in value])
    if isinstance(value, dict):
        return lua.table_from({key: _lua_value(lua, item) for key, item in value.items()})
    return value
