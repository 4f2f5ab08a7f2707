"""What names mean in llama-swap: models, their aliases, models of peers, selectors and profiles."""

from __future__ import annotations

from trio_gateway.converting.description import Table
from trio_gateway.converting.filters import rewrite_of
from trio_gateway.converting.values import Reader, lua_text, lua_texts, url_parts
from trio_gateway.finding.lua_text import Code, Commented, LuaValue, expression, key

_ASSUMED_CONTEXT = 131_072  # tokens, of a model elsewhere
_STRATEGIES = {"warm": "loaded", "spillover": "spill", "pin": "loaded"}


class Names:
    """`own`: the models of this machine. `taken`: every name, and the model that it means."""

    def __init__(self) -> None:
        self.own = dict[str, Reader]()
        self.taken = dict[str, str]()

    def knows(self, name: str) -> bool:
        return name in self.own or name in self.taken

    def model_of(self, name: str) -> str:
        return name if name in self.own else self.taken.get(name, name)

    def take(self, reader: Reader, model: str, aliases: list[str]) -> list[str]:
        """Those of the aliases that no other model has."""
        found = []
        for alias in aliases:
            if not alias.isprintable() or alias != alias.strip():
                reader.remark("aliases", "one has spaces around it, or is no line; left out")
            elif alias in self.own or self.taken.get(alias, model) != model:
                if alias != model:
                    reader.remark("aliases", f'"{alias}" is another model\'s name; left out')
            elif alias and alias not in found:
                self.taken[alias] = model
                found.append(alias)
        return found


def peers(top: Reader, names: Names) -> None:
    """Each model of a peer, by `PEER/MODEL`, and by its own name if no other has that."""
    found = top.inner("peers")
    offered = list[str]()
    for value in found.values():
        if isinstance(value, dict):
            offered += dict.fromkeys(Reader(top.description, "", value, {}).texts("models"))
    for peer, value in found.items():
        table = value if isinstance(value, dict) else {}
        reader = Reader(top.description, f"peers.{peer}", table, top.environment)
        url = _base_url(reader)
        if url is None:
            continue
        models = list(dict.fromkeys(reader.texts("models")))
        if not models:
            reader.remark("models", "it offers none; left out")
        for name in models:
            full = f"{peer}/{name}"
            if names.knows(full):
                reader.remark("models", f'"{full}" is another model\'s name; left out')
                continue
            names.taken[full] = full
            is_alone = offered.count(name) == 1 and not names.knows(name)
            if is_alone:
                names.taken[name] = full
            alias = name if is_alone else ""
            top.description.models.append(_remote(reader, full, alias, name, url))
        if models:
            reader.remark(
                "models", f"their contexts are not in the file: {_ASSUMED_CONTEXT} is assumed; "
                "write the real ones"
            )  # fmt: skip


def _remote(reader: Reader, full: str, alias: str, served: str, url: str) -> Table:
    model: Table = {"name": lua_text(full)}
    if alias:
        model["aliases"] = [lua_text(alias)]
    model["engine"] = Code("presets.engines.remote")
    model["urls"] = [lua_text(url)]
    model["served_name"] = lua_text(served)
    if secret := reader.text("apiKey"):
        model["api_key"] = lua_text(secret)
    timeouts = Reader(
        reader.description, reader.at("timeouts"), reader.inner("timeouts"), reader.environment
    )
    for theirs, ours in (("connect", "connect_timeout"), ("responseHeader", "first_byte_timeout")):
        if (limit := timeouts.number(theirs)) is not None and limit > 0:
            model[ours] = limit
    if rewrite := rewrite_of(reader, full, []):
        model["rewrite"] = rewrite
    model["variants"] = [{"context": Commented(_ASSUMED_CONTEXT, beside="assumed")}]
    return model


def _base_url(reader: Reader) -> str | None:
    """llama-swap puts `/v1/…` behind it."""
    proxy = reader.text("proxy").rstrip("/")
    parts = url_parts(proxy)
    is_variable = proxy.startswith("${env.")
    if not is_variable and (parts.scheme not in ("http", "https") or not parts.hostname):
        reader.remark("proxy", "left out: expected the URL of a server")
        return None
    if parts.username or parts.password or parts.query or parts.fragment:
        reader.remark("proxy", "left out: no URL here has a user, a password or a query; use "
                      "`api_key`")  # fmt: skip
        return None
    return proxy if proxy.endswith("/v1") else f"{proxy}/v1"


def choices(top: Reader, names: Names) -> None:
    """Selectors become choices; a profile is something that somebody switches on by hand."""
    for name, value in top.inner("selectors").items():
        table = value if isinstance(value, dict) else {}
        reader = Reader(top.description, f"selectors.{name}", table, top.environment)
        strategy = reader.text("strategy")
        if strategy not in _STRATEGIES:
            reader.remark("strategy", "left out: none that is known; warm, spillover or pin")
            continue
        targets = list(dict.fromkeys(reader.texts("targets")))
        for target in targets:
            if not names.knows(target):
                reader.remark("targets", f'no model "{target}"; left out')
        targets = [target for target in targets if names.knows(target)]
        if names.knows(name):
            reader.remark("", "is a model's name; left out")
            continue
        if not targets:
            reader.remark("targets", "no model is left; left out")
            continue
        if strategy == "pin":
            if len(targets) > 1:
                reader.remark("targets", "only the first was ever used; the others are left out")
            targets = targets[:1]
        top.description.choices[name] = _mixed(lua_texts(targets), _choice_keys(reader, strategy))
        if reader.inner("metadata"):
            reader.remark("metadata", "has no counterpart; `description` is what lists show")
    for name in top.inner("profiles"):
        top.description.remark(
            f"profiles.{name}",
            "`choices` mean one of several models, and `trio-gateway choose` pins one "
            "(docs/configuration.md#choices)",
        )


def _mixed(members: list[LuaValue], keys: Table) -> Code:
    """A table that has elements as well as keys."""
    parts = [*map(expression, members)]
    parts += [f"{key(name)} = {expression(value)}" for name, value in keys.items()]
    return Code("{ " + ", ".join(parts) + " }")


def _choice_keys(reader: Reader, strategy: str) -> Table:
    keys: Table = {"strategy": _STRATEGIES[strategy]}
    if strategy == "spillover":
        settings = Reader(
            reader.description, reader.at("settings"), reader.inner("settings"), reader.environment
        )
        keys["spill_after"] = max(1, settings.number("spillover") or 1)
    if reader.flag("unlisted"):
        keys["hidden"] = True
    name, words = reader.text("name").strip(), reader.text("description").strip()
    if name or words:
        keys["description"] = lua_text(f"{name}: {words}" if name and words else name or words)
    return keys
