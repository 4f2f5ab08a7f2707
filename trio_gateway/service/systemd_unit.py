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
    command = " ".join(map(_argument, of.command))
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
        f"TimeoutStopSec={of.grace_s:.0f}",
        f"WatchdogSec={WATCHDOG_S}",
        "Restart=on-failure",
        "RestartSec=2",
        "RestartPreventExitStatus=2",  # the configuration is wrong, and will be the next time
        "KillMode=mixed",
        "NoNewPrivileges=yes",
        "ProtectSystem=full",
        *(f"ReadWritePaths=-{_setting(str(p))}" for p in of.written if _is_protected(p)),
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _is_protected(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _PROTECTED)


def _path(path: Path) -> str:
    """The only thing in its line."""
    return str(path).replace("%", "%%")


def _setting(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _argument(text: str) -> str:
    """Of a command. A single `;` or a word that begins with one of its signs is quoted as well."""
    return _setting(text).replace("$", "$$")
