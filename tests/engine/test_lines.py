"""What is kept of the lines of engines."""

from __future__ import annotations

from trio_gateway.bus import Bus
from trio_gateway.engine.lines import GONE_KEPT, EngineLines
from trio_gateway.engine.scheduling.events import VariantKey
from trio_gateway.lines import KEPT, EngineLine, LogLine

KEY = VariantKey("m", "1")


def texts(lines: EngineLines, name: str = "m:1") -> list[str]:
    return [line.text for line in lines.last({name})]


def test_the_last_lines_of_an_engine() -> None:
    lines = EngineLines(Bus())
    lines.begin(1, KEY)
    lines.keep("m:1", [b"first"])
    for number in range(KEPT // 2):
        lines.keep("m:1", [b"%d a" % number, b"%d b" % number])
    assert len(texts(lines)) == KEPT
    assert texts(lines)[0] == "0 a"
    lines.keep("m:1", [b"x"] * 3 * KEPT)
    assert texts(lines) == ["x"] * KEPT
    lines.keep("m:1", [b"last"])
    assert texts(lines)[-2:] == ["x", "last"]


def test_those_of_the_last_engines_that_are_gone() -> None:
    lines = EngineLines(Bus())
    for number in range(GONE_KEPT + 2):
        lines.begin(number, VariantKey("m", str(number)))
        lines.keep(f"m:{number}", [b"said"])
        lines.end(number)
    assert [texts(lines, f"m:{number}") for number in range(3)] == [[], [], ["said"]]
    lines.keep("m:0", [b"nobody's"])
    assert texts(lines, "m:0") == []


def test_they_are_told_to_who_listens_for_them_and_not_as_the_gateways_own() -> None:
    bus, heard, own = Bus(), list[EngineLine](), list[LogLine]()
    bus.listen(EngineLine, heard.append)
    bus.listen(LogLine, own.append)
    lines = EngineLines(bus)
    lines.begin(1, KEY)
    lines.keep("m:1", [b"one", b"two"])
    assert [(line.source, line.text) for line in heard] == [("m:1", "one"), ("m:1", "two")]
    assert own == []
