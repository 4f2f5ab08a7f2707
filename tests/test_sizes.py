"""How large a file and a class may get, and what the front door of a package says."""

from __future__ import annotations

import ast

import pytest

from tests.support import source

pytestmark = pytest.mark.untraced  # nothing of the product runs

LINES = 350
REASON = "Over 350 lines because"  # begins the sentence of a docstring that says why
METHODS = 20
DOCSTRING_LINES = range(3, 11)


def long_files() -> set[str]:
    """Test modules are lists of sentences and may be as long as what they are about."""
    return {
        name
        for name, file in source.modules().items()
        if not file.name.startswith("test_")
        and len(file.read_text().splitlines()) > LINES
        and REASON not in " ".join((ast.get_docstring(source.tree(name)) or "").split())
    }


def wide_classes() -> set[str]:
    classes = {
        node.name: (f"{name}:{node.name}", node)
        for name in source.modules()
        if name.startswith("trio_gateway.")
        for node in ast.walk(source.tree(name))
        if isinstance(node, ast.ClassDef)
    }

    def public(name: str) -> set[str]:
        if name not in classes:
            return set()
        node = classes[name][1]
        own = {n.name for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        above = [public(base.id) for base in node.bases if isinstance(base, ast.Name)]
        return {method for method in own if not method.startswith("_")}.union(*above)

    return {classes[name][0] for name in classes if len(public(name)) > METHODS}


def packages() -> set[str]:
    """All below `trio_gateway` itself, which holds its version."""
    files = source.modules().items()
    return {n for n, file in files if file.name == "__init__.py" and n.startswith("trio_gateway.")}


def silent_packages() -> set[str]:
    said = {name: ast.get_docstring(source.tree(name)) or "" for name in packages()}
    return {n for n, text in said.items() if len(text.splitlines()) not in DOCSTRING_LINES}


def test_no_file_is_long_without_a_reason() -> None:
    assert long_files() == set()


def test_no_class_has_more_public_methods_than_one_can_keep_in_mind() -> None:
    assert wide_classes() == set()


def test_a_package_says_what_lives_in_it() -> None:
    assert silent_packages() == set()


def test_a_package_hides_nothing_in_its_front_door() -> None:
    """A docstring and no code: each name is imported from where it is."""
    assert {name for name in packages() if len(source.tree(name).body) > 1} == set()
