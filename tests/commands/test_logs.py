"""How lines of a log are shown in a terminal."""

from __future__ import annotations

import json

import pytest

from trio_gateway.commands.logs import _show


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ready", "ready"),
        ("m ended:\nout of memory\nbye", "m ended:\n    out of memory\n    bye"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b[2Jcleared\x07", "\ufffd[2Jcleared\ufffd"),
    ],
    ids=["plain", "several lines", "colours", "what could harm the terminal"],
)  # fmt: skip
def test_a_line(capsys: pytest.CaptureFixture[str], text: str, shown: str) -> None:
    line = {"at_s": 0.0, "level": "INFO", "source": "gateway", "text": text}
    _show(json.dumps(line), with_source=False)
    assert capsys.readouterr().out.partition(" ")[2] in (f"{shown}\n", _plain(shown))


def _plain(shown: str) -> str:
    """Click takes colours out where no terminal is."""
    return shown.replace("\x1b[31m", "").replace("\x1b[0m", "") + "\n"
