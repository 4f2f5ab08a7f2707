"""What is written for systemd and launchd, and read by systemd itself where it is there."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trio_gateway.config.locate import load_config
from trio_gateway.service.installation import Installation, installation
from trio_gateway.service.launch_agent import launch_agent
from trio_gateway.service.systemd_unit import systemd_unit

pytestmark = pytest.mark.processes  # systemd reads them

SERVER = """
server = {
  listen_v4 = "127.0.0.1:0", listen_v6 = "none", shutdown_grace = 12, dumps_dir = "/etc/dumps",
  history = { file = "history.sqlite" },
}
models = {
  { name = "m", engine = presets.engines.llamacpp,
    variants = { { binary = "/bin/true", context = 4096, args = {} } } },
}
"""
NASTY = 'a b;c%h$HOME\\n"q"é'


def written(folder: Path, **environ: str) -> Installation:
    folder.mkdir()
    (folder / "gateway.lua").write_text(SERVER)
    config, _ = load_config(folder / "gateway.lua")
    return installation(config, "models", watch=True, environ=environ)


def test_it_runs_this_python_on_that_file_in_its_folder(tmp_path: Path) -> None:
    found = written(tmp_path / "here", PATH="/opt/cuda/bin:/bin", OPENAI_API_KEY="secret")
    file = str(tmp_path / "here" / "gateway.lua")
    assert found.command == (
        sys.executable, "-m", "trio_gateway", "serve", "-c", file, "--watch",
    )  # fmt: skip
    assert found.folder == tmp_path / "here"
    assert found.environment == {"PATH": "/opt/cuda/bin:/bin"}
    assert found.grace_s > 12
    assert found.written == (Path("/etc/dumps"), tmp_path / "here")


def test_systemd_reads_it_as_it_is_meant_whatever_the_paths_have_in_them(tmp_path: Path) -> None:
    unit = systemd_unit(written(tmp_path / NASTY, PATH="/bin:/x y%z"))
    folder = str(tmp_path / NASTY)
    in_quotes = folder.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    assert f'"-c" "{in_quotes.replace("$", "$$")}/gateway.lua" "--watch"\n' in unit
    assert f"WorkingDirectory={folder.replace('%', '%%')}\n" in unit
    assert 'Environment="PATH=/bin:/x y%%z"\n' in unit
    assert 'ReadWritePaths=-"/etc/dumps"\n' in unit
    for line in ("Type=notify", "KillMode=mixed", "NoNewPrivileges=yes", "Restart=on-failure"):
        assert f"\n{line}\n" in unit
    _verify(unit, tmp_path)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_would_find_a_mistake(tmp_path: Path) -> None:
    unit = systemd_unit(written(tmp_path / "here"))
    with pytest.raises(AssertionError):
        _verify(unit.replace("Type=notify", "Type=nothing"), tmp_path)


def _verify(unit: str, folder: Path) -> None:
    if (analyze := shutil.which("systemd-analyze")) is None:
        return
    file = folder / "models.service"
    file.write_text(unit)
    done = subprocess.run(
        [analyze, "verify", str(file)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    assert "models.service" not in done.stderr


def test_launchd_gets_the_same(tmp_path: Path) -> None:
    found = written(tmp_path / NASTY, PATH="/bin")
    text = launch_agent(found, tmp_path / "log")
    agent = plistlib.loads(text.encode())
    assert agent["Label"] == "local.models"
    assert agent["ProgramArguments"] == [*found.command]
    assert agent["WorkingDirectory"] == str(found.folder)
    assert agent["EnvironmentVariables"] == {"PATH": "/bin"}
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ExitTimeOut"] >= 12
    assert "trio-gateway service install" in text
