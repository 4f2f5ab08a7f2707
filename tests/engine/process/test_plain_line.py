"""Lines of engines as text alone."""

from __future__ import annotations

import pytest

from trio_gateway.engine.process.plain_line import coloured_line, plain_line


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain, and a \xc3\xa4  \r", "plain, and a ä"),
        (b"\x1b[0;31merror\x1b[0m: no memory", "error: no memory"),
        (b"\x1b[38;5;196mE\x1b[m \x1b[1mx\x1b[22m", "E x"),
        (b"\x1b[2K\x1b[1Gloading\x1b[?25h", "loading"),
        (b"\x1b]0;a title\x07ready", "ready"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b(Btext\x1b7", "text"),
        (b" 10 %\r 50 %\r100 %", "100 %"),
        (b"a\tb\x07\x00c", "a\tbc"),
        (b"cut in the middle of one \x1b[38;5", "cut in the middle of one"),
        (b"\xff", "\ufffd"),
        (b"", ""),
    ],
)
def test_what_only_a_terminal_needs_is_taken_out(line: bytes, text: str) -> None:
    assert plain_line(line) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain, and a \xc3\xa4  \r", "plain, and a ä"),
        (b"\x1b[0;31merror\x1b[0m: no memory", "\x1b[0;31merror\x1b[0m: no memory"),
        (b"\x1b[2K\x1b[1G\x1b[32mloading\x1b[?25h", "\x1b[32mloading"),
        (b"\x1b]0;a title\x07\x1b[1mready\x07", "\x1b[1mready"),
        (b" 10 %\r\x1b[1m100 %", "\x1b[1m100 %"),
        (b"cut in the middle of one \x1b[38;5", "cut in the middle of one"),
    ],
)
def test_colours_can_be_kept(line: bytes, text: str) -> None:
    assert coloured_line(line) == text
