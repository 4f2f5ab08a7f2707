"""What is written for systemd and launchd, and read by systemd itself where it is there."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trio_gateway.config.locate import load_config
from trio_gateway.service.installation import Installation, Unsuitable, check_lasting, installation
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


def written(folder: Path, config_text: str = SERVER, **environ: str) -> Installation:
    folder.mkdir()
    (folder / "gateway.lua").write_text(config_text)
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
    assert found.stop_s > 12 + 10  # the grace, and what an engine has
    assert found.written == (Path("/etc/dumps"), tmp_path / "here")


def test_systemd_reads_it_as_it_is_meant_whatever_the_paths_have_in_them(tmp_path: Path) -> None:
    unit = systemd_unit(written(tmp_path / NASTY, PATH="/bin:/x y%z"))
    folder = str(tmp_path / NASTY)
    in_quotes = folder.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    assert f'"-c" "{in_quotes.replace("$", "$$")}/gateway.lua" "--watch"\n' in unit
    assert f"WorkingDirectory={folder.replace('%', '%%')}\n" in unit
    assert 'Environment="PATH=/bin:/x y%%z"\n' in unit
    assert 'ReadWritePaths="-/etc/dumps"\n' in unit
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


def test_a_program_whose_path_has_a_dollar_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "$venv 1" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    unit = systemd_unit(written(tmp_path / "here"))
    assert f'ExecStart="@{python}" "{str(python).replace("$", "$$")}" "-m"' in unit
    _verify(unit, tmp_path)


def test_engines_in_containers_keep_the_rights_that_they_need(tmp_path: Path) -> None:
    podman = SERVER.replace("/bin/true", "/usr/bin/podman")
    found = written(tmp_path / "here", podman)
    assert found.needs_rights == ("podman",)
    unit = systemd_unit(found)
    assert "NoNewPrivileges" not in unit
    assert "ProtectSystem" not in unit
    assert "podman" in unit
    _verify(unit, tmp_path)


def test_no_path_ends_its_line(tmp_path: Path) -> None:
    with pytest.raises(Unsuitable, match="rename it"):
        written(tmp_path / "a\nExecStartPre=false")


@pytest.mark.parametrize(
    ("python", "lasts"),
    [
        ("/home/a/.local/share/uv/tools/trio-gateway/bin/python", True),
        ("/home/a/.local/share/pipx/venvs/trio-gateway/bin/python", True),
        ("/home/a/.cache/uv/archive-v0/AbC/bin/python", False),
        ("/home/a/.local/share/pipx/.cache/b2/bin/python", False),
        ("/home/a/.cache/pipx/b2/bin/python", False),
    ],
)
def test_what_is_installed_for_one_run_is_no_service(python: str, *, lasts: bool) -> None:
    if lasts:
        check_lasting(python)
    else:
        with pytest.raises(Unsuitable, match="pipx install"):
            check_lasting(python)


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
