"""Presets of llama.cpp's router as a description. Pure, but for what `trained` reads."""

from __future__ import annotations

import math
import re

from trio_gateway.converting.command import Command, Trained
from trio_gateway.converting.description import Description, NotConvertible, Table
from trio_gateway.converting.llama_options import named
from trio_gateway.converting.preset_file import ALL, DEFAULT, Sections
from trio_gateway.converting.values import lua_texts
from trio_gateway.finding.lua_text import Code, Commented, LuaValue

BINARY = "llama-server"
_ASSUMED_CONTEXT = 8192  # tokens
_ROUTER_ENGINES = 4  # `--models-max`, where the router's command does not say otherwise
_REPO = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")
_MODEL_OPTIONS = frozenset({"model", "hf-repo", "model-url", "docker-repo", "hf-file"})
# The router has them for itself, and the gateway in its place.
_OWN = frozenset({"host", "port", "reuse-port", "models-dir", "models-preset", "models-max",
                  "models-autoload", "no-models-autoload"})  # fmt: skip
_YES = frozenset({"on", "enabled", "true", "1"})
_RESERVED = "version"


def from_router_presets(sections: Sections, trained: Trained, binary: str = BINARY) -> Description:
    """Raises NotConvertible: no section is a model."""
    description = Description("llama.cpp")
    description.server["engine_idle_timeout"] = 0
    of_all = sections.get(ALL, {})
    timeouts = list[float]()
    for name, own in sections.items():
        if name == ALL or (name == DEFAULT and not own.keys() - {_RESERVED}):
            continue
        model = _model(description, name, {**_named(of_all), **_named(own)}, trained, binary)
        if model is not None:
            description.models.append(model)
        timeouts += _stop_timeouts(of_all, own)
    if not description.models:
        raise NotConvertible("no section is a model: each needs `model` or `hf`")
    if timeouts and max(timeouts) > 0:
        description.server["engine_stop_timeout"] = math.ceil(max(timeouts))
        if len(set(timeouts)) > 1:
            description.remark("stop-timeout", "one for all engines: the longest is taken")
    engines = min(len(description.models), _ROUTER_ENGINES)
    if engines > 1:
        description.pools["primary"] = {"engines": engines}
    description.remark(
        "--models-max",
        f"not in the file: {engines} engine{'s' if engines > 1 else ''} at a time, as the router "
        "has by default; pools.primary has the number, and `memory` to go by",
    )
    description.remark(
        "--host, --port",
        "not in the file: the gateway listens on 127.0.0.1:7777; server.listen_v4 names another "
        "address",
    )
    description.remark(
        "llama-server",
        f'not in the file: `binary` is "{binary}" on PATH; write its path if it is elsewhere',
    )
    return description


def _named(section: dict[str, str]) -> dict[str, tuple[str, str]]:
    """The key and the value of each option, by one name for all its names."""
    return {named(key).name: (key, value) for key, value in section.items() if key != _RESERVED}


def _stop_timeouts(*sections: dict[str, str]) -> list[float]:
    found = [section["stop-timeout"] for section in sections if "stop-timeout" in section][-1:]
    return [float(value) for value in found if re.fullmatch(r"\d+(\.\d+)?", value)]


def _model(
    description: Description,
    name: str,
    options: dict[str, tuple[str, str]],
    trained: Trained,
    binary: str,
) -> Table | None:
    args, variables = list[str](), dict[str, str]()
    aliases = list[str]()
    is_loaded = False
    if not options.keys() & _MODEL_OPTIONS:
        if not _REPO.fullmatch(name):
            description.remark(
                f"[{name}]",
                "left out: it names no model; the router takes it from its cache or --models-dir, "
                "so write `model = PATH`, or see `trio-gateway init FOLDER`",
            )
            return None
        args += ["--hf-repo", name]
    for option, (key, value) in options.items():
        if option == "load-on-startup":
            is_loaded = value.lower() in _YES
        elif option == "alias":
            aliases += [alias for alias in map(str.strip, value.split(",")) if alias]
        elif option in _OWN:
            description.remark(f"[{name}] {key}", "left out: the gateway sees to it")
        elif option in ("api-key", "hf-token"):
            variables["LLAMA_API_KEY" if option == "api-key" else "HF_TOKEN"] = value
        elif option in ("stop-timeout",):
            pass
        elif option == "dedup-cache-models":
            description.remark(f"[{name}] {key}", "left out: the gateway lists no cache")
        else:
            args += named(key).args(value)
    command = Command((binary, *args))
    model: Table = {"name": name}
    used = {str(other["name"]) for other in description.models}
    if aliases := [a for a in dict.fromkeys(aliases) if a != name and a not in used]:
        model["aliases"] = list[LuaValue](aliases)
    model["engine"] = Code("presets.engines.llamacpp")
    if is_loaded:
        model["preload"] = True
    variant: Table = {"binary": binary}
    context = command.context(trained)
    if context is None:
        description.remark(
            f"[{name}]",
            f"names no context, so {_ASSUMED_CONTEXT} is assumed; `context` has it",
        )
    variant["context"] = (
        Commented(_ASSUMED_CONTEXT, beside="assumed") if context is None else context
    )
    variant["args"] = lua_texts(args)
    if variables:
        variant["env"] = dict[str, LuaValue](variables)
    if command.has_relative_files:
        variant["workdir"] = "."
        description.remark(
            f"[{name}]",
            "has paths that are not full; they begin at the folder of the configuration",
        )
    model["variants"] = [variant]
    return model
