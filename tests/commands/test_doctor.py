"""`trio-gateway doctor`, with files and programs as they are on a machine."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.gguf_files import write_bpe
from trio_gateway.commands.doctor import doctor
from trio_gateway.examining import probes
from trio_gateway.examining.seen import SeenGateway
from trio_gateway.stop_signals import StopSignals

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def _no_other_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests run some at the same time."""
    monkeypatch.setattr(probes, "running_gateways", lambda: iter(()))


def run(folder: Path, source: str, *options: str) -> Result:
    (folder / "gateway.lua").write_text(source)
    argv = ["-c", str(folder / "gateway.lua"), *options]
    return CliRunner().invoke(doctor, argv, obj=StopSignals())


def source(binary: Path | str, file: Path | str, server: str = "listen_v4 = '127.0.0.1:0'") -> str:
    return f"""
    server = {{ {server} }}
    models = {{ {{ name = "m", engine = presets.engines.llamacpp, variants = {{
      {{ binary = "{binary}", args = {{ "-m", "{file}" }}, context = 64 }} }} }} }}
    """


def program(folder: Path, *lines: str) -> Path:
    path = folder / "llama-server"
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def test_a_configuration_that_is_fine(tmp_path: Path) -> None:
    file = write_bpe(tmp_path, template="{{ tools }}")
    result = run(tmp_path, source(program(tmp_path, "echo 'version: 20000 (x)'"), file))
    assert (result.exit_code, result.output) == (
        0, f"Nothing to do in {tmp_path}/gateway.lua (given by -c).\n"
    )  # fmt: skip


def test_one_line_for_each_finding_and_the_same_as_json(tmp_path: Path) -> None:
    file = write_bpe(tmp_path, template="{{ messages }}")
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:-40])
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = source(
            program(tmp_path, "exit 3"), tmp_path / "cut.gguf", f"listen_v4 = '127.0.0.1:{port}'"
        )
        result = run(tmp_path, text)
    as_json = json.loads(run(tmp_path, text, "--json").stdout)
    lines = result.output.splitlines()
    assert result.exit_code == 2
    assert [line.partition(":")[0] for line in lines] == [*["error"] * 3, lines[-1]]
    assert "ends with status 3" in result.output
    assert f"127.0.0.1:{port} is in use by pid" in result.output
    assert lines[-1].startswith("3 errors in ")
    said = [f"{f['severity']}: {f['text']}; {f['cure']}" for f in as_json["findings"]]
    assert said == [line for line in lines[:-1] if "is in use" not in line]  # it is free again
    assert (as_json["errors"], as_json["warnings"], as_json["notes"]) == (2, 0, 0)


def test_it_starts_nothing_beside_another_gateway_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "running_gateways", lambda: iter([SeenGateway(9, 1)]))
    text = source(program(tmp_path, "exit 3"), write_bpe(tmp_path, template="{{ tools }}"))
    result = run(tmp_path, text, "--start")
    assert result.exit_code == 2
    assert "a gateway (pid 9) has 1 engine: what is started beside" in result.output
    told = run(tmp_path, text, "--start", "--anyway", "m")
    assert "m:64 did not start" in told.output
    wrong = run(tmp_path, text, "--start", "none")
    assert (wrong.exit_code, "there is no model none" in wrong.output) == (2, True)


def test_a_configuration_that_does_not_load_is_its_own_finding(tmp_path: Path) -> None:
    result = run(tmp_path, "server = { listn = 1 }")
    assert result.exit_code == 2
    assert "error: " in result.output
    assert "Traceback" not in result.output
    gone = CliRunner().invoke(
        doctor, ["-c", str(tmp_path / "none.lua"), "--json"], obj=StopSignals()
    )
    assert gone.exit_code == 2
    assert json.loads(gone.stdout)["errors"] == 1
