"""`trio-gateway service`, with programs in systemd's place that write down how they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trio_gateway.commands.root import root
from trio_gateway.service.supervisor import Launchd
from trio_gateway.stop_signals import StopSignals

pytestmark = pytest.mark.processes

CONFIG = """
server = { listen_v4 = "127.0.0.1:0", listen_v6 = "none" }
models = {
  { name = "m", engine = presets.engines.llamacpp,
    variants = { { binary = "/bin/true", context = 4096, args = {} } } },
}
"""
FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
[ "$(cat "$ANSWER")" != "${0##*/} $2" ]
"""


class System:
    """`fails`: the program and its verb, which has no success."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._calls, self._answer = folder / "calls", folder / "answer"
        self._answer.write_text("")
        self.file = folder / "gateway.lua"
        self.file.write_text(CONFIG)
        self.unit = folder / "config" / "systemd" / "user" / "trio-gateway.service"
        programs = folder / "bin"
        programs.mkdir()
        for name in ("systemctl", "journalctl"):
            (programs / name).write_text(FAKE)
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        monkeypatch.setenv("CALLS", str(self._calls))
        monkeypatch.setenv("ANSWER", str(self._answer))
        self._monkeypatch, self._programs = monkeypatch, programs

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(root, ["service", *arguments], obj=StopSignals())

    def install(self, *options: str) -> Result:
        return self.run("install", "-c", str(self.file), *options)

    def calls(self) -> list[str]:
        found = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [call for call in found if " show " not in call]

    def fail(self, call: str) -> None:
        """`--user` stands before each verb, so the script sees that."""
        self._answer.write_text(call)

    def take_away(self, program: str) -> None:
        (self._programs / program).unlink()
        self._monkeypatch.setenv("PATH", str(self._programs))


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    return System(tmp_path, monkeypatch)


def test_it_is_written_started_shown_and_removed(system: System) -> None:
    done = system.install()
    assert done.exit_code == 0, done.output
    assert str(system.file) in system.unit.read_text()
    assert "loginctl enable-linger" in done.output
    assert system.calls() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable trio-gateway.service",
        "systemctl --user restart trio-gateway.service",
    ]
    assert system.install("--watch").exit_code == 0  # anew
    assert '"--watch"' in system.unit.read_text()
    assert system.run("status").exit_code == 0
    assert system.run("logs", "-f", "--lines", "7").exit_code == 0
    assert system.calls()[-2:] == [
        "systemctl --user --no-pager status trio-gateway.service",
        "journalctl --user -u trio-gateway.service -n 7 --follow",
    ]
    assert system.run("uninstall").exit_code == 0
    assert system.calls()[-2:] == [
        "systemctl --user disable --now trio-gateway.service",
        "systemctl --user daemon-reload",
    ]
    assert not system.unit.exists()
    assert system.file.exists()


def test_printing_writes_and_calls_nothing(system: System) -> None:
    done = system.install("--print")
    assert done.exit_code == 0
    assert done.output.startswith("# Written by `trio-gateway service install`")
    assert not system.unit.exists()
    assert not system.calls()


def test_what_somebody_else_wrote_stays(system: System) -> None:
    system.unit.parent.mkdir(parents=True)
    system.unit.write_text("[Service]\nExecStart=/bin/mine\n")
    for done in (system.install(), system.run("uninstall")):
        assert done.exit_code == 1
        assert f"{system.unit} was not written by" in done.output
    assert "/bin/mine" in system.unit.read_text()
    assert not system.calls()


@pytest.mark.parametrize("command", ["uninstall", "status", "logs"])
def test_what_is_not_there_is_said(system: System, command: str) -> None:
    done = system.run(command, "--name", "other")
    assert done.exit_code == 1
    assert "no service other is installed" in done.output
    assert "trio-gateway service install --name other" in done.output


def test_without_systemd_it_says_what_to_do(system: System) -> None:
    system.take_away("systemctl")
    done = system.install()
    assert done.exit_code == 1
    assert "systemctl is not here" in done.output
    assert "install --print" in done.output
    assert not system.unit.exists()


def test_without_systemd_its_file_can_be_removed_all_the_same(system: System) -> None:
    assert system.install().exit_code == 0
    system.take_away("systemctl")
    done = system.run("uninstall")
    assert done.exit_code == 1
    assert "was not stopped" in done.output
    assert not system.unit.exists()


def test_keys_that_a_service_would_not_have_are_named(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "tg-0123456789abcdef0123456789abcdef")
    text = CONFIG.replace("server = {", 'server = { api_keys = { env("MY_KEY") },')
    system.file.write_text(text)
    done = system.install()
    assert (
        "reads MY_KEY, which the service does not know: write NAME=value lines into " in done.output
    )
    assert "tg-0123" not in system.unit.read_text() + done.output
    system.file.with_suffix(".env").write_text("MY_KEY=x")
    assert "MY_KEY" not in system.install().output


def test_a_start_that_fails_points_to_the_log(system: System) -> None:
    system.fail("systemctl restart")
    done = system.install()
    assert done.exit_code == 1
    assert "trio-gateway service logs" in done.output


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a/b", "x" * 99])
def test_a_name_that_would_be_a_path_or_an_option_is_refused(system: System, name: str) -> None:
    assert system.install("--print", "--name", name).exit_code == 2


def test_a_configuration_with_mistakes_is_not_installed(system: System) -> None:
    system.file.write_text("models = 3")
    assert system.install().exit_code == 2
    assert not system.unit.exists()


def test_macos_has_an_agent(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_gateway.commands.service.supervisor", Launchd)
    done = system.install("--print")
    assert done.exit_code == 0
    assert "<key>ProgramArguments</key>" in done.output
