"""llama-swap's groups, or its matrix, as pools: engines that share memory."""

from __future__ import annotations

import msgspec

from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.converting.description import NotConvertible
from trio_gateway.converting.llama_swap_names import Names
from trio_gateway.converting.macros import plain
from trio_gateway.converting.matrix_sets import alternatives, sets_of
from trio_gateway.converting.values import Reader
from trio_gateway.converting.yaml_text import Value

_KNOWN_POOLS = frozenset(known.default_pool for known in ENGINE_TYPES.values())
_LIMIT = "limit them by pools.primary.memory (docs/configuration.md#pools)"


class Group(msgspec.Struct, frozen=True):
    """`is_apart`: neither do its models stop others when they start, nor the other way round."""

    name: str
    members: tuple[str, ...]
    swap: bool
    exclusive: bool
    persistent: bool

    @property
    def engines(self) -> int:
        return 1 if self.swap else max(1, len(self.members))

    @property
    def is_apart(self) -> bool:
        return self.persistent or not self.exclusive


def pools(top: Reader, names: Names) -> None:
    """Sets `pool` of models, and the pools.

    Raises:
        NotConvertible: of the matrix, what llama-swap would not take either.
    """
    routing = Reader(top.description, "routing", top.inner("routing"), top.environment)
    router = Reader(top.description, "routing.router", routing.inner("router"), top.environment)
    settings = Reader(
        top.description, "routing.router.settings", router.inner("settings"), top.environment
    )
    _priorities(routing)
    is_old = bool(top.inner("groups") or top.inner("matrix"))
    at = top if is_old else settings
    use = router.text("use") if not is_old else ""
    matrix, groups = at.inner("matrix"), at.inner("groups")
    if matrix and (use == "matrix" or (not groups and not use)):
        _matrix(Reader(top.description, at.at("matrix"), matrix, top.environment), names)
    elif groups:
        if matrix:
            settings.remark("matrix", "not in use there either; left out")
        _groups(Reader(top.description, at.at("groups"), groups, top.environment), names)


def _groups(reader: Reader, names: Names) -> None:
    groups, seen = [], set[str]()
    for name, value in reader.table.items():
        table = value if isinstance(value, dict) else {}
        inner = Reader(reader.description, reader.at(name), table, reader.environment)
        members = []
        for member in inner.texts("members"):
            if member not in names.own:
                inner.remark("members", f'no model "{member}"; left out')
            elif member in seen:
                inner.remark("members", f'"{member}" is in a group already; left out')
            else:
                seen.add(member)
                members.append(member)
        group = Group(
            name, tuple(members), inner.flag("swap", True), inner.flag("exclusive", True),
            inner.flag("persistent"),
        )  # fmt: skip
        if members:
            groups.append(group)
    alone = [name for name in names.own if name not in seen]
    together = [group for group in groups if not group.is_apart]
    if alone:
        together.append(Group("(default)", tuple(alone), True, True, False))
    _shared(reader, together)
    for group in groups:
        if group.is_apart:
            _own_pool(reader, group, bool(together))


def _shared(reader: Reader, groups: list[Group]) -> None:
    """Those that make way for each other: the pool `primary`."""
    engines = max((group.engines for group in groups), default=1)
    if engines == 1:
        return
    reader.description.pools["primary"] = {"engines": engines}
    if len(groups) > 1:
        names = ", ".join(group.name for group in groups if group.engines > 1)
        reader.description.remark(
            reader.at(names),
            f"its models run together, and leave for those of other groups; here any {engines} of "
            f"the pool primary run together: {_LIMIT}",
        )


def _own_pool(reader: Reader, group: Group, has_others: bool) -> None:
    pool = group.name if group.name not in _KNOWN_POOLS else f"group-{group.name}"
    reader.description.pools[pool] = {"engines": group.engines}
    _put(reader, group.members, pool)
    if has_others and group.exclusive:
        reader.remark(group.name, "a pool of its own: when its models start, others stay loaded")
    elif has_others and not group.persistent:
        reader.remark(group.name, "a pool of its own: its models stay when others start")


def _put(reader: Reader, members: tuple[str, ...] | frozenset[str], pool: str) -> None:
    names = {str(member) for member in members}
    for number, model in enumerate(reader.description.models):
        if model["name"] in names:
            before = {key: value for key, value in model.items() if key != "variants"}
            reader.description.models[number] = {
                **before, "pool": pool, "variants": model["variants"],
            }  # fmt: skip


def _matrix(reader: Reader, names: Names) -> None:
    variables = {key: plain(_scalar(value)) for key, value in reader.inner("vars").items()}
    expressions = {key: plain(_scalar(value)) for key, value in reader.inner("sets").items()}

    def model_of(word: str) -> str | None:
        name = variables.get(word, word)
        return name if name in names.own else None

    sets, unknown = sets_of(expressions, model_of)
    if unknown:
        reader.remark("sets", f"no models: {', '.join(unknown)}; left out")
    if reader.inner("evict_costs"):
        reader.remark(
            "evict_costs",
            "the gateway weighs how long each takes to load; with `pinned` a model is stopped last",
        )
    in_sets = {model for found in sets for model in found}
    others = frozenset(names.own) - in_sets
    classes = alternatives([found for found in sets if found])
    if classes is not None and len(classes) > 1 and not others:
        first = next(iter(names.own))
        for members in sorted(classes, key=lambda c: first not in c):
            if first in members:
                continue  # the pool primary, which has one engine
            pool = f"with-{min(members)}"
            reader.description.pools[pool] = {"engines": 1}
            _put(reader, members, pool)
        return
    engines = max((len(found) for found in sets), default=1)
    if engines > 1:
        reader.description.pools["primary"] = {"engines": engines}
        reader.remark(
            "sets",
            f"no list here of who may run together: any {engines} of the pool "
            f"primary may; {_LIMIT}",
        )


def _scalar(value: Value) -> Value:
    if isinstance(value, list | dict):
        raise NotConvertible("matrix: expected texts")
    return value


def _priorities(routing: Reader) -> None:
    if routing.inner("scheduler"):
        routing.remark(
            "scheduler",
            "a key of server.api_keys has a `priority` (docs/security.md), and so has a request "
            "(X-Gateway-Priority); models have none",
        )
