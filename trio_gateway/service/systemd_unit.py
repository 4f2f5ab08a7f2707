"""The text of a systemd unit for a user's gateway. Pure.

What is quoted how is in `man systemd.service` and `man systemd.syntax`: `%` begins a specifier
everywhere, `$` a variable in commands, and a path of its own is not quoted at all.
"""

from __future__ import annotations

from pathlib import Path

from trio_gateway.service.installation import Installation

MARK = "# Written by `trio-gateway service install`, which writes it anew; `uninstall` removes it."
# A loop that does nothing for so long does nothing any more: no request holds it for 0.1 s.
WATCHDOG_S = 60
START_S = 90
# ProtectSystem=full makes these read-only.
_PROTECTED = ("/usr", "/boot", "/efi", "/etc")


def systemd_unit(of: Installation) -> str:
    """KillMode=mixed: only the gateway is asked to end, and it asks its engines. Whatever is left
    after that is killed, the reaper included."""
    command = " ".join((*_program(of.command[0]), *map(_argument, of.command[1:])))
    lines = [
        MARK,
        "[Unit]",
        "Description=trio-gateway: local models behind one OpenAI-compatible address",
        "StartLimitIntervalSec=60",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={command}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        f"WorkingDirectory={_path(of.folder)}",
        *(f"Environment={_setting(f'{k}={v}')}" for k, v in of.environment.items()),
        f"EnvironmentFile=-{_path(of.secrets)}",
        f"TimeoutStartSec={START_S}",
        f"TimeoutStopSec={of.stop_s:.0f}",
        f"WatchdogSec={WATCHDOG_S}",
        "WatchdogSignal=SIGKILL",  # not SIGABRT: an image of its memory has prompts in it
        "Restart=on-failure",
        "RestartSec=2",
        "RestartPreventExitStatus=2",  # the configuration is wrong, and will be the next time
        "SuccessExitStatus=143",  # SIGTERM before it was ready
        "KillMode=mixed",
        *_protection(of),
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _protection(of: Installation) -> list[str]:
    if of.needs_rights:
        return [f"# Not protected: {', '.join(of.needs_rights)} needs rights that it would lose."]
    written = [_setting(f"-{path}") for path in of.written if _is_protected(path)]
    return [
        "NoNewPrivileges=yes",
        "ProtectSystem=full",
        *(f"ReadWritePaths={path}" for path in written),
    ]


def _program(path: str) -> tuple[str, ...]:
    """`$` means nothing in the program's path, but something in the name that it is called by."""
    return (_setting(f"@{path}"), _argument(path)) if "$" in path else (_setting(path),)


def _is_protected(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _PROTECTED)


def _path(path: Path) -> str:
    """The only thing in its line."""
    return str(path).replace("%", "%%")


def _setting(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _argument(text: str) -> str:
    """Of a command, behind its program."""
    return _setting(text).replace("$", "$$")
