"""What children of the gateway inherit, and that there is no child that was forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support import source
from trio_gateway.environment import inherited

STARTS = {"open_process", "run_process", "Popen", "create_subprocess_exec"}


def test_keys_stay_here_and_all_else_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A_KEY", "TRIO_GATEWAY_KEY", "PLAIN"):
        monkeypatch.setenv(name, name)
    names = {"A_KEY", "TRIO_GATEWAY_KEY", "PLAIN"}
    assert inherited().keys() & names == {"A_KEY", "PLAIN"}
    assert inherited({"A_KEY"}).keys() & names == {"PLAIN"}
    wishes = {"A_KEY": True, "TRIO_GATEWAY_KEY": True, "PLAIN": False, "NOT_SET": True}
    assert inherited({"A_KEY"}, wishes).keys() & {*names, "NOT_SET"} == names - {"PLAIN"}


def test_the_place_where_the_gateway_is_reached_is_no_engines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"AIP_MODE", "AIP_HTTP_PORT"}
    for name in (*names, "AIP_PROJECT_NUMBER"):
        monkeypatch.setenv(name, "8080")
    assert not inherited().keys() & names
    assert "AIP_PROJECT_NUMBER" in inherited()
    assert inherited((), {"AIP_MODE": True}).keys() & names == {"AIP_MODE"}


@pytest.mark.untraced
def test_each_process_that_is_started_is_given_its_environment() -> None:
    found = [*starts()]
    assert len(found) > 4
    assert [where for where, has_environment in found if not has_environment] == []


def starts() -> Iterator[tuple[str, bool]]:
    """Each call that starts a process: where, and whether it names an environment."""
    for file in sorted((source.ROOT / "trio_gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            of_subprocess = name in ("run", "call", "check_call", "check_output") and (
                ast.unparse(node.func).startswith("subprocess.")
            )
            if name in STARTS or of_subprocess:
                yield f"{file}:{node.lineno}", any(k.arg == "env" for k in node.keywords)
