"""A description as the text of a configuration, with what has no counterpart at its end. Pure."""

from __future__ import annotations

from trio_gateway.converting.description import Description
from trio_gateway.finding.lua_text import Code, LuaValue, assignment, comment

_MOST_REMARKS = 200


def written(description: Description, source: str, day: str) -> str:
    """`source`: the file that was read. `day`: when, in words."""
    binaries = _binaries(description)
    parts = [
        comment(
            f"Made from {description.program}'s {source} by `trio-gateway init --from` on {day}.\n"
            "`trio-gateway check` says what is wrong; docs/configuration.md has all keys."
        )
    ]
    parts += [assignment(name, text, is_local=True) for text, name in binaries.items()]
    parts.append(assignment("server", description.server))
    models = [_with_names(model, binaries) for model in description.models]
    parts.append(assignment("models", models))
    if description.pools:
        words = "Engines that share memory: so many of each pool run at a time."
        parts.append(f"{comment(words)}\n{assignment('pools', description.pools)}")
    if description.choices:
        parts.append(assignment("choices", description.choices))
    if description.remarks:
        lines = ["What is not as it was:"]
        lines += [f"  {remark.where}: {remark.what}" for remark in description.remarks]
        parts.append(comment("\n".join(lines[:_MOST_REMARKS])))
    return "\n\n".join(parts) + "\n"


def _binaries(description: Description) -> dict[str, str]:
    """Programs that more than one variant starts, by a name for each."""
    found: list[str] = []
    for model in description.models:
        for variant in _tables(model.get("variants")):
            binary = variant.get("binary")
            if isinstance(binary, str):
                found.append(binary)
    often = [text for text in dict.fromkeys(found) if found.count(text) > 1 and "/" in text]
    if not often:
        return {}
    if len(often) == 1:
        return {often[0]: "binary"}
    return {text: f"binary_{number}" for number, text in enumerate(often, start=1)}


def _tables(value: object) -> list[dict[str, LuaValue]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _with_names(model: dict[str, LuaValue], binaries: dict[str, str]) -> dict[str, LuaValue]:
    variants: list[LuaValue] = []
    for variant in _tables(model.get("variants")):
        binary = variant.get("binary")
        if isinstance(binary, str) and binary in binaries:
            variant = {**variant, "binary": Code(binaries[binary])}
        variants.append(variant)
    return {**model, "variants": variants}
