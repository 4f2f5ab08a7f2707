"""Commands that ask the running gateway."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.harness import configuration, free_port, model, real_variant, running_gateway
from trio_gateway.commands.root import root
from trio_gateway.stop_signals import StopSignals

LISTEN = "127.0.0.1"


def run(config: Path, *command: str) -> Result:
    name, *more = command
    return CliRunner().invoke(root, [name, "-c", str(config), *more], obj=StopSignals())


def written(tmp_path: Path, port: int) -> tuple[Path, str]:
    text = configuration(
        model("m", real_variant(512)), model("other", real_variant(512)),
        listen=f'"{LISTEN}:{port}"',
    )  # fmt: skip
    path = tmp_path / "asking.lua"
    path.write_text(text)
    return path, text


@pytest.mark.parametrize(
    "command",
    [("status",), ("requests",), ("load", "m"), ("unload", "m"), ("pin", "m"), ("cancel", "1")],
    ids=lambda command: command[0],
)
def test_without_a_gateway_each_says_what_to_do(tmp_path: Path, command: tuple[str, ...]) -> None:
    path, _ = written(tmp_path, free_port())
    result = run(path, *command)
    assert result.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:" in result.stderr
    assert "trio-gateway serve" in result.stderr


def test_top_needs_a_terminal(tmp_path: Path) -> None:
    path, _ = written(tmp_path, free_port())
    assert "it needs a terminal" in run(path, "top").stderr


@pytest.mark.processes
def test_what_is_loaded_is_seen_and_changed(tmp_path: Path) -> None:
    path, text = written(tmp_path, free_port())
    with running_gateway(tmp_path, text):
        assert "No engine runs" in run(path, "status").stdout
        assert "m:512 is loaded, in" in run(path, "load", "m").stdout
        assert "m:512 was loaded already." in run(path, "load", "m").stdout
        shown = run(path, "status").stdout
        assert "ready" in shown
        assert "0 of" in shown
        rows = json.loads(run(path, "status", "--json").stdout)
        assert [row["model"] for row in rows["engines"]] == ["m"]
        assert "m is pinned" in run(path, "pin", "m").stdout
        assert "m is not pinned." in run(path, "pin", "--off", "m").stdout
        assert json.loads(run(path, "pin", "--json", "m").stdout)["pinned"] is True
        assert "m is unloaded." in run(path, "unload", "m").stdout
        assert "m was not loaded." in run(path, "unload", "m").stdout
        unknown = run(path, "load", "nobody")
        assert (unknown.exit_code, "there is no model" in unknown.stderr) == (1, True)


@pytest.mark.processes
def test_logs_and_requests_of_a_running_gateway(tmp_path: Path) -> None:
    path, text = written(tmp_path, free_port())
    with running_gateway(tmp_path, text) as gateway:
        assert "remembers no such requests" in run(path, "requests").stdout
        assert gateway.chat("m", max_tokens=4).status_code == 200
        assert "m:512" in run(path, "requests").stdout
        (row,) = json.loads(run(path, "requests", "--json", "--model", "m").stdout)["requests"]
        assert row["outcome"] == "ok"
        over = run(path, "cancel", row["id"])
        assert (over.exit_code, "over" in over.stderr) == (1, True)
        own = run(path, "logs").stdout
        assert "m:512: ready in" in own
        engine = run(path, "logs", "m", "--json").stdout.splitlines()
        assert {json.loads(line)["source"] for line in engine} == {"m:512"}
        assert "there is no model" in run(path, "logs", "nobody").stderr


@pytest.mark.processes
def test_top_draws_itself_and_gives_the_terminal_back(tmp_path: Path) -> None:
    path, text = written(tmp_path, free_port())
    with running_gateway(tmp_path, text):
        command = [sys.executable, "-m", "trio_gateway", "top", "-c", str(path)]
        terminal, its_side = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color"}
        top = subprocess.Popen(command, env=env, stdin=its_side, stdout=its_side)
        os.close(its_side)
        shown = b""
        while b"Last requests" not in shown:
            shown += os.read(terminal, 65536)
        os.write(terminal, b"\x1b[B\x1b[Bmq")  # at once, as a slow connection brings them
        with suppress(OSError):  # Linux' way of saying that the other end is closed
            while piece := os.read(terminal, 65536):
                shown += piece
        assert top.wait(20) == 0
        assert b"\x1b[?1049l" in shown  # the screen as it was before
        os.close(terminal)


@pytest.mark.parametrize(
    ("begun", "completed"),
    [("load o", "plain,other"), ("logs o", "plain,other"), ("logs g", "plain,gateway")],
)
def test_the_shell_completes_the_names_of_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str, completed: str
) -> None:
    path, _ = written(tmp_path, free_port())
    monkeypatch.setenv("TRIO_GATEWAY_CONFIG", str(path))
    given = {"COMP_WORDS": f"trio-gateway {begun}", "COMP_CWORD": "2"}
    env = {**given, "_TRIO_GATEWAY_COMPLETE": "bash_complete"}
    result = CliRunner().invoke(root, [], prog_name="trio-gateway", env=env)
    assert result.stdout.split() == [completed]


def test_the_shell_completes_commands() -> None:
    env = {"COMP_WORDS": "trio-gateway un", "COMP_CWORD": "1"}
    env["_TRIO_GATEWAY_COMPLETE"] = "bash_complete"
    result = CliRunner().invoke(root, [], prog_name="trio-gateway", env=env)
    assert result.stdout.split() == ["plain,unload"]
