"""A configuration for what was found, as Lua text with comments. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trio_gateway.finding.engines import NAME, Engine
from trio_gateway.finding.entry import Entry, common_args, entry_of
from trio_gateway.finding.left import FAULTS, Left
from trio_gateway.finding.lua_text import (
    Code,
    Commented,
    LuaValue,
    assignment,
    comment,
    expression,
    text,
)
from trio_gateway.finding.machine import Room
from trio_gateway.finding.plan import Plan, Planned, size_text

_MOST_LEFT = 50  # lines at the end of the file
_MIB = 2**20
_PRIMARY_ENGINES = 4

_VARIANT = """\
-- One way to start a model: with room for `context` tokens of prompt and answer. The gateway starts
-- the smallest one that a request fits into. `more` are further arguments.
local function variant(file, context, more)
  local args = { "--model", file, "--ctx-size", tostring(context) }
  args = concat_arrays(concat_arrays(args, common), more or {})
  return { binary = binary, context = context, args = args }
end"""


def written(plan: Plan, engine: Engine | None, room: Room, left: Sequence[Left], day: str) -> str:
    """The text of the file. `day`: when it was written, in words."""
    return "\n\n".join(_parts(plan, engine, room, left, day)) + "\n"


def _parts(
    plan: Plan, engine: Engine | None, room: Room, left: Sequence[Left], day: str
) -> Iterator[str]:
    yield comment(
        f"Written by `trio-gateway init` on {day}, for {room.words}.\n"
        "Change what you like: `trio-gateway check` says what is wrong, and `trio-gateway reload`\n"
        "has a running gateway take it over. docs/configuration.md has all keys."
    )
    yield _engine(engine)
    common = list(common_args(is_gpu=room.is_gpu))
    what = "What every engine gets: one request at a time, which has the whole context"
    what += ";\nand all layers on the GPU." if room.is_gpu else "."
    yield f"{comment(what)}\n{assignment('common', common, is_local=True)}"
    yield _VARIANT
    yield _SERVER
    yield _models(plan)
    if (pools := _pools(plan, room)) is not None:
        yield pools
    if left:
        yield _left(left)


_SERVER = """\
server = {
  -- This machine only. For others: "0.0.0.0:7777", and keys of `trio-gateway key`.
  listen_v4 = "127.0.0.1:7777",
  engine_idle_timeout = 600, -- seconds; an engine that is unused for that long stops
}"""


def _engine(engine: Engine | None) -> str:
    if engine is None:
        what = "No llama-server was found: install llama.cpp, or write its path here."
        return f"{comment(what)}\n{assignment('binary', NAME, is_local=True)}"
    if engine.is_embedded:
        what = "The llama-server that comes as a Python package."
        value: LuaValue = Code("presets.binaries.embedded")
    else:
        what = "The engine" + (f", version {engine.version}." if engine.version else ".")
        value = engine.binary
    return f"{comment(what)}\n{assignment('binary', value, is_local=True)}"


def _models(plan: Plan) -> str:
    if not plan.models:
        return f"{comment('No model was found that fits.')}\nmodels = {{}}"
    lines = ["models = {"]
    for planned in plan.models:
        lines += _model(planned)
    return "\n".join([*lines, "}"])


def _model(planned: Planned) -> Iterator[str]:
    entry, model = entry_of(planned), planned.model
    size = size_text(model.size_bytes)
    parts = f" in {len(model.files)} files" if len(model.files) > 1 else ""
    owner = f", of {model.owner}" if model.owner else ""
    yield comment(
        f"{model.header.architecture}, trained with {model.trained:,} tokens, {size}{parts}{owner}",
        "  ",
    )
    yield "  {"
    yield f"    name = {text(entry.name)},"
    yield f"    description = {text(entry.description)},"
    yield "    engine = presets.engines.llamacpp,"
    if entry.pool is not None:
        yield f"    pool = {text(entry.pool)}, -- next to the others, which never wait for it"
    variants = [*_variants(entry)]
    yield f"    variants = {expression(variants, 15, 2)},"
    if model.draft is not None:
        words = "A draft model may make answers faster on a GPU that has room for both; add"
        yield comment(
            f'{words}\n{{ "--model-draft", {text(model.draft)} }} as further arguments.', "    "
        )
    yield "  },"


def _variants(entry: Entry) -> Iterator[LuaValue]:
    file = text(entry.path)
    for variant in entry.variants:
        more = f", {expression(list(variant.args))}" if variant.args else ""
        call = Code(f"variant({file}, {variant.context}{more})")
        yield Commented(call, beside=f"about {size_text(variant.needs_bytes)}")


def _pools(plan: Plan, room: Room) -> str | None:
    if plan.primary_bytes is None:
        return None
    count = sum(not planned.is_helper for planned in plan.models)
    has_helpers = plan.secondary_bytes is not None
    engines = min(max(count, 1), _PRIMARY_ENGINES) if room.is_gpu and not has_helpers else 1
    pools: dict[str, LuaValue] = {"primary": _pool(engines, plan.primary_bytes, room)}
    if plan.secondary_bytes is not None:
        pools["secondary"] = _pool(plan.helpers_at_a_time, plan.secondary_bytes, room)
    what = "Engines that may run at a time, and the memory that they may use together"
    what += ": what other\nprograms leave." if room.is_watched else "."
    return f"{comment(what)}\n{assignment('pools', pools)}"


def _pool(engines: int, memory: int, room: Room) -> LuaValue:
    given = "auto" if room.is_watched else f"{-(-memory // _MIB)}MiB"
    return {"engines": engines, "memory": given}


def _left(left: Sequence[Left]) -> str:
    faults = sorted(left, key=lambda entry: entry.why not in FAULTS)
    lines = ["Found and left out:"]
    lines += (f"  {entry.path}: {entry.reason}" for entry in faults[:_MOST_LEFT])
    if len(faults) > _MOST_LEFT:
        lines.append(f"  and {len(faults) - _MOST_LEFT} more")
    return comment("\n".join(lines))
