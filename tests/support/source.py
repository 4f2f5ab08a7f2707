"""The project's own source as its tests read it: modules, and who imports whom.

Read with `ast`, so that imports inside functions and under `TYPE_CHECKING` are arrows as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOPS = ("trio_gateway", "benchmarks", "tests")
Arrow = tuple[str, str]


@cache
def modules() -> Mapping[str, Path]:
    """All modules of the repository by their dotted name; a package is its `__init__.py`."""
    found = {}
    for file in sorted(f for top in TOPS for f in (ROOT / top).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = file
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


@cache
def imported(module: str) -> frozenset[str]:
    """Dotted names of what a module imports: modules of ours, or whatever else was asked for."""
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in modules() else str(node.module) for name in whole}
    return frozenset(names)


@cache
def arrows() -> frozenset[Arrow]:
    """Who imports whom, among our own modules."""
    return frozenset(
        (module, name) for module in modules() for name in imported(module) if name in modules()
    )


@cache
def reached(module: str) -> frozenset[str]:
    """The module, and every module of ours that is loaded with it."""
    seen, left = {module}, [module]
    while left:
        for name in imported(left.pop()) & modules().keys() - seen:
            seen.add(name)
            left.append(name)
    return frozenset(seen)


def circles(graph: frozenset[Arrow]) -> Iterator[list[str]]:
    """The sets of modules that reach each other, each once (Tarjan's strong components)."""
    follows: dict[str, list[str]] = {}
    for source, target in sorted(graph):
        follows.setdefault(source, []).append(target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in follows.get(node, []):
            if target not in index:
                yield from visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                yield sorted(component)

    for node in follows:
        if node not in index:
            yield from visit(node)
