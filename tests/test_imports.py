"""Who may import whom. `docs/architecture.md` says why; this says so for every module.

An arrow points down the table below. Rooms of one line do not know each other, a room's own
modules may import each other, and no arrows anywhere, in tests and benchmarks neither, make a
circle. What runs only under `TYPE_CHECKING` is an arrow like any other.
"""

from __future__ import annotations

import pytest

from tests.support import source

pytestmark = pytest.mark.untraced  # nothing of the product runs

# From the roof to the ground. A room is a module or a package with all that is in it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("main",),
    ("commands",),
    ("examining", "converting"),
    ("app",),
    ("under_hypercorn",),
    ("service", "agents"),
    # -- server
    ("server.gateway_server",),
    ("server.gateway",),
    ("server.front",),
    ("server.handlers",),
    ("server.openapi",),
    ("server.metrics",),
    ("server.history",),
    ("server.traces",),
    ("server.reading",),
    ("server.ollama", "server.feed"),
    ("server.relay",),
    ("server.access", "server.forms"),
    ("server.http",),
    ("server.dumps",),
    (
        "server.aftermath",
        "server.budget",
        "server.fleet",
        "server.records",
        "server.reloading",
        "server.preload",
    ),
    ("server.api",),
    # -- models
    ("models.explanation", "models.recount"),
    ("models.model_selector", "models.catalog", "models.choosing"),
    (
        "models.counting",
        "models.affinity",
        "models.cache_breaks",
        "models.media_support",
        "models.selection",
        "models.known_choice",
    ),
    ("models.need", "models.names", "models.model_files", "models.known_model"),
    ("models.capabilities",),
    ("models.model_facts", "models.medium"),
    # -- engine
    ("engine.manager",),
    ("engine.engine_factory", "engine.yields"),
    ("engine.memory_watch", "engine.on_clusters"),
    ("engine.news", "engine.others"),
    ("engine.overview", "engine.recounting", "engine.remembering"),
    ("engine.lease",),
    ("engine.engine",),
    ("engine.configured",),
    ("engine.launch", "engine.variant_facts", "engine.loadable", "engine.resources"),
    ("engine.ledger", "engine.speeds"),
    ("engine.cluster", "engine.waking"),
    (
        "engine.pool_readings",
        "engine.placement",
        "engine.kv",
        "engine.health",
        "engine.address",
        "engine.info",
        "engine.outcome",
    ),
    ("engine.clients",),
    ("engine.http",),
    ("engine.errors", "engine.happenings", "engine.lines"),
    ("engine.scheduling", "engine.process", "engine.sites"),
    ("cluster",),
    # -- the ground
    ("config",),
    ("finding",),
    ("gguf", "hardware"),
    (
        "tasks",
        "held",
        "rawjson",
        "log",
        "bus",
        "wall_clock",
        "run_clock",
        "environment",
        "magic_packet",
    ),
    ("stop_signals", "lines"),  # anybody may import them
)
# Packages that hold rooms and nothing themselves.
STAIRS = ("", "server", "models", "engine")

# Decisions and formats: no task, no socket, no server. They reach no module that has any.
PURE = (
    "gguf",
    "config",
    "finding.lua_text",
    "rawjson",
    "engine.errors",
    "engine.scheduling",
    "engine.sites",
    "models.need",
    "models.names",
    "models.affinity",
    "models.cache_breaks",
    "models.known_model",
    "server.api",
    "bus",
    "lines",
    "magic_packet",
    "engine.happenings",
)
EFFECTS = {"trio", "hypercorn", "quart", "quart_trio", "httpx", "httpcore"}


def inside(module: str) -> str:
    """A module's name without the package's."""
    return module.removeprefix("trio_gateway").removeprefix(".")


def belongs(module: str, room: str) -> bool:
    return inside(module) == room or inside(module).startswith(f"{room}.")


def floor_of(module: str) -> tuple[int, str]:
    """How far from the roof, and the room."""
    rooms = [(n, room) for n, floor in enumerate(FLOORS) for room in floor if belongs(module, room)]
    assert len(rooms) == 1, f"no rule, or more than one, covers {module}: {rooms}"
    return rooms[0]


def own() -> list[str]:
    return [name for name in source.modules() if name.split(".")[0] == "trio_gateway"]


def points_down(arrow: source.Arrow) -> bool:
    (above, room), (below, other) = map(floor_of, arrow)
    return room == other or above < below


def test_every_module_has_a_room() -> None:
    for module in own():
        if inside(module) not in STAIRS:
            floor_of(module)


def test_every_rule_is_about_a_module_that_is_there() -> None:
    rooms = {*PURE}.union(*FLOORS)
    assert {room for room in rooms if not any(belongs(name, room) for name in own())} == set()


def test_every_arrow_points_down() -> None:
    rooms = {module for module in own() if inside(module) not in STAIRS}
    ours = {(a, b) for a, b in source.arrows() if a in rooms and b in rooms}
    assert {arrow for arrow in ours if not points_down(arrow)} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert [*source.circles(source.arrows())] == []


def test_the_product_knows_no_tests_and_no_benchmarks() -> None:
    assert {(a, b) for a, b in source.arrows() if a in own() and b not in own()} == set()


def test_only_support_is_shared_by_tests_and_with_benchmarks() -> None:
    """No test module, no conftest is imported, and support imports neither benchmarks nor them."""
    lent = {(a, b) for a, b in source.arrows() if b.startswith("tests.")}
    assert {(a, b) for a, b in lent if not b.startswith("tests.support.")} == set()
    support = {(a, b) for a, b in source.arrows() if a.startswith("tests.support.")}
    assert {(a, b) for a, b in support if b.startswith("benchmarks.")} == set()


def test_pure_modules_reach_no_effects() -> None:
    pure = [module for module in own() if any(belongs(module, room) for room in PURE)]
    impure = {
        module
        for module in pure
        for name in source.reached(module)
        if EFFECTS & {found.split(".")[0] for found in source.imported(name)}
    }
    assert impure == set()
