"""The property list of a launchd agent for a user's gateway, as macOS has services. Pure."""

from __future__ import annotations

import plistlib
from pathlib import Path

from trio_gateway.service.installation import Installation

MARK = "Written by `trio-gateway service install`, which writes it anew; `uninstall` removes it."
PREFIX = "local."  # a label is a name turned round, and this one is nobody's domain


def launch_agent(of: Installation, log: Path) -> str:
    """`log`: where its output goes, which nobody else keeps there."""
    content = {
        "Label": f"{PREFIX}{of.name}",
        "ProgramArguments": [*of.command],
        "WorkingDirectory": str(of.folder),
        "EnvironmentVariables": {**of.environment},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        "ExitTimeOut": round(of.stop_s),
        "ProcessType": "Interactive",  # else the system slows it down
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    text = plistlib.dumps(content, sort_keys=False).decode()
    head, rest = text.split("<plist", 1)
    return f"{head}<!-- {MARK} -->\n<plist{rest}"
