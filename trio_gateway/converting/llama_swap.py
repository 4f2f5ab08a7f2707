"""llama-swap's configuration as a description of one of ours. Pure, but for what `trained` reads.

The order of things is llama-swap's: variables of the environment, macros, then each model by
itself, then the groups or the matrix that hold them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType

from trio_gateway.converting import llama_swap_words, macros
from trio_gateway.converting.command import Trained, without_comments
from trio_gateway.converting.description import Description, NotConvertible, Table
from trio_gateway.converting.llama_swap_model import ModelConverter
from trio_gateway.converting.llama_swap_names import Names, choices, peers
from trio_gateway.converting.llama_swap_pools import pools
from trio_gateway.converting.values import Reader, lua_text
from trio_gateway.converting.yaml_text import Value

_HISTORY_MAX = 100_000  # requests


def from_llama_swap(
    document: Value, environment: Mapping[str, str], trained: Trained
) -> Description:
    """Raises NotConvertible: it is not llama-swap's, or llama-swap itself would not take it."""
    if not isinstance(document, dict):
        raise NotConvertible("expected llama-swap's `models:`")
    if not isinstance(document.get("models", {}), dict | NoneType):
        raise NotConvertible("models: expected names and models")
    of_all = macros.macros_of("macros", document.get("macros"))
    others = {key: value for key, value in document.items() if key not in ("models", "macros")}
    found = macros.substituted(others, of_all)
    assert isinstance(found, dict)
    if (name := macros.unknown(found)) is not None:
        raise NotConvertible(f"no macro ${{{name}}}")
    description = Description("llama-swap")
    top = Reader(description, "", found, environment)
    _server(top)
    raw = document.get("models") or {}
    assert isinstance(raw, dict)
    names = Names()
    for name, value in raw.items():
        if not isinstance(value, dict):
            raise NotConvertible(f"models.{name}: expected a model")
        own = macros.macros_of(f"models.{name}.macros", value.get("macros"))
        resolved = _resolved(value, macros.for_model(name, of_all, own))
        if (missing := macros.unknown(resolved)) is not None:
            raise NotConvertible(f"models.{name}: no macro ${{{missing}}}")
        names.own[name] = Reader(description, f"models.{name}", resolved, environment)
    converter = ModelConverter(description, names, trained)
    for name, reader in names.own.items():
        description.models.append(converter.convert(name, reader))
    peers(top, names)
    if not description.models:
        raise NotConvertible("it has no models")
    pools(top, names)
    choices(top, names)
    _preload(top, names)
    _unknown(top)
    return description


def _resolved(model: Mapping[str, Value], of_model: macros.Macros) -> dict[str, Value]:
    """With its macros put in. Comments in commands go first, as a macro of several lines would
    leave the comment that it is in; and of keys, those that are names of models have macros."""
    body = {key: item for key, item in model.items() if key != "macros"}
    for key in ("cmd", "cmdStop"):
        if isinstance(text := body.get(key), str):
            body[key] = without_comments(text)
    filters = body.get("filters")
    if isinstance(filters, dict) and isinstance(by_name := filters.get("setParamsByID"), dict):
        named = {macros.plain(macros.substituted(k, of_model)): v for k, v in by_name.items()}
        body["filters"] = {**filters, "setParamsByID": named}
    resolved = macros.substituted(body, of_model)
    assert isinstance(resolved, dict)
    return resolved


def _server(top: Reader) -> None:
    server = top.description.server
    top.description.remark(
        "-listen",
        "not in the file: the gateway listens on 127.0.0.1:7777; server.listen_v4 names another "
        "address",
    )
    keys = [lua_text(key) for key in top.texts("apiKeys") if key]
    if keys:
        server["api_keys"] = keys
        top.remark(
            "apiKeys", "taken over; `/gateway/…` and commands need one with admin = true, see "
            "docs/security.md"
        )  # fmt: skip
    startup = top.number("healthCheckTimeout")
    if startup is not None:
        server["engine_startup_timeout"] = max(startup, 15)  # llama-swap's least
    server["engine_idle_timeout"] = max(top.number("globalTTL") or 0, 0)
    if (stop := top.number("unloadTimeout")) is not None and stop > 0:
        server["engine_stop_timeout"] = stop
    if top.flag("sendLoadingState"):
        server["loading_state"] = "reasoning"
    history: Table = {}
    kept = top.number("metricsMaxInMemory")
    if kept is not None and kept > 0:
        history["requests"] = min(kept, _HISTORY_MAX)
    store = Reader(top.description, "store", top.inner("store"), top.environment)
    if path := store.text("path"):
        history["file"] = "history.sqlite"
        store.remark("path", f"kept in history.sqlite next to this file; {path} stays llama-swap's")
    if history and history != {"requests": 1000}:
        server["history"] = history
    activity = Reader(top.description, "ui", top.inner("ui"), top.environment).inner("activity")
    headers = Reader(top.description, "ui.activity", activity, top.environment).texts("session_id")
    if headers and headers != ["X-Session-ID", "X-Litellm-Session-Id"]:
        server["session_headers"] = list(headers)


def _preload(top: Reader, names: Names) -> None:
    hooks = Reader(top.description, "hooks", top.inner("hooks"), top.environment)
    startup = Reader(
        top.description, "hooks.on_startup", hooks.inner("on_startup"), top.environment
    )
    wanted = []
    for name in map(str.strip, startup.texts("preload")):
        if names.knows(name):
            wanted.append(name)
        elif name:
            startup.remark("preload", f'no model "{name}"; left out')
    if wanted:
        top.description.server["preload"] = list(dict.fromkeys(wanted))
    for key in hooks.table:
        if key != "on_startup":
            hooks.remark(key, "unknown; left out")


def _unknown(top: Reader) -> None:
    for key in top.table:
        if key in llama_swap_words.GLOBAL_READ:
            continue
        top.remark(key, llama_swap_words.GLOBAL.get(key, "unknown to this converter; left out"))
