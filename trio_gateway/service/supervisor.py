"""Who runs services here, systemd or launchd: where their files lie, and the programs they have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import platformdirs

from trio_gateway.environment import inherited
from trio_gateway.service import launch_agent, systemd_unit
from trio_gateway.service.installation import Installation

_ANSWERS_WITHIN_S = 10.0


class NoSupervisor(Exception):
    """No service can be installed here; the message says why, and what to do instead."""


class NotOurs(Exception):
    """A file that somebody else wrote stands where the service's would be."""


class Supervisor(Protocol):
    """A service's life. Methods with commands give their exit code, and their output to the user.

    `path`: the service's file.
    """

    path: Path

    def text(self, of: Installation) -> str: ...
    def start(self) -> int: ...
    def stop(self) -> int: ...
    def forget(self) -> None: ...
    def status(self) -> int: ...
    def logs(self, *, follow: bool, lines: int) -> int: ...
    def hint(self) -> str: ...


class Systemd:
    """The manager of a user's units."""

    def __init__(self, name: str) -> None:
        self._unit = f"{name}.service"
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.path = config / "systemd" / "user" / self._unit

    def text(self, of: Installation) -> str:
        return systemd_unit.systemd_unit(of)

    def start(self) -> int:
        """As it is on the disk now; ends when the gateway is ready."""
        return (
            _call("systemctl", "--user", "daemon-reload")
            or _call("systemctl", "--user", "enable", self._unit)
            or _call("systemctl", "--user", "restart", self._unit)
        )

    def stop(self) -> int:
        return _call("systemctl", "--user", "disable", "--now", self._unit)

    def forget(self) -> None:
        _call("systemctl", "--user", "daemon-reload")

    def status(self) -> int:
        return _call("systemctl", "--user", "--no-pager", "status", self._unit)

    def logs(self, *, follow: bool, lines: int) -> int:
        wish = ("--follow",) if follow else ("--no-pager",)
        return _call("journalctl", "--user", "-u", self._unit, "-n", str(lines), *wish)

    def hint(self) -> str:
        return (
            "It starts when you log in. To have it run from the machine's start on:\n"
            "  loginctl enable-linger"
        )


class Launchd:
    """The manager of a user's agents."""

    def __init__(self, name: str) -> None:
        self._label = f"{launch_agent.PREFIX}{name}"
        self.path = Path.home() / "Library" / "LaunchAgents" / f"{self._label}.plist"
        self._log = platformdirs.user_log_path("trio-gateway", appauthor=False) / f"{name}.log"

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    def text(self, of: Installation) -> str:
        return launch_agent.launch_agent(of, self._log)

    def start(self) -> int:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        _call("launchctl", "bootout", f"{self._domain}/{self._label}", quiet=True)
        return _call("launchctl", "bootstrap", self._domain, str(self.path))

    def stop(self) -> int:
        return _call("launchctl", "bootout", f"{self._domain}/{self._label}")

    def forget(self) -> None:
        """It knows nothing of a file that is gone."""

    def status(self) -> int:
        return _call("launchctl", "print", f"{self._domain}/{self._label}")

    def logs(self, *, follow: bool, lines: int) -> int:
        return _call("tail", "-n", str(lines), *(("-f",) if follow else ()), str(self._log))

    def hint(self) -> str:
        return f"It starts when you log in. Its log: {self._log}"


def supervisor(name: str, platform: str = sys.platform) -> Supervisor:
    """Of this system. Whether it runs, `check_running` says.

    Raises:
        NoSupervisor: there is none that is known.
    """
    if platform == "darwin":
        return Launchd(name)
    if platform.startswith("linux"):
        return Systemd(name)
    raise NoSupervisor(
        f"on {platform} there is neither systemd nor launchd; have whatever starts your programs "
        "run `trio-gateway serve -c FILE`"
    )


def check_running(of: Supervisor, environ: Mapping[str, str]) -> None:
    """
    Raises:
        NoSupervisor: the manager of the user's services cannot be reached.
    """
    instead = (
        "Have whatever starts your programs run `trio-gateway serve -c FILE`; "
        "`trio-gateway service install --print` shows the unit"
    )
    program = "launchctl" if isinstance(of, Launchd) else "systemctl"
    if shutil.which(program) is None:
        raise NoSupervisor(f"{program} is not here. {instead}")
    if program != "systemctl":
        return
    asked = subprocess.run(
        ["systemctl", "--user", "show", "--property=Version"],
        env=inherited(),
        capture_output=True,
        text=True,
        timeout=_ANSWERS_WITHIN_S,
        check=False,
    )
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["it says nothing"])[0]
        hint = "" if environ.get("XDG_RUNTIME_DIR") else " (XDG_RUNTIME_DIR is not set: log in)"
        raise NoSupervisor(
            f"systemd's manager of your services is not there: {said}{hint}. {instead}"
        )


def write(path: Path, text: str) -> None:
    """
    Raises:
        NotOurs
        OSError
    """
    if path.exists() and not is_ours(path):
        raise NotOurs(f"{path} was not written by `trio-gateway service install`; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def is_ours(path: Path) -> bool:
    """
    Raises:
        OSError: it cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    return systemd_unit.MARK in text or launch_agent.MARK in text


def _call(*command: str, quiet: bool = False) -> int:
    output = subprocess.DEVNULL if quiet else None
    called: Sequence[str] = command
    try:
        return subprocess.run(
            called, env=inherited(), stdout=output, stderr=output, check=False
        ).returncode
    except KeyboardInterrupt:  # of `logs --follow`: that is its end
        return 0
