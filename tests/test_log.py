"""How the log looks, and which of its lines are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from trio_gateway.lines import ENGINE_LOGGERS, KEPT
from trio_gateway.log import LogFormat, configure_logging, line_keeper

OURS = logging.getLogger("trio_gateway")
LOG = logging.getLogger("trio_gateway.test")


@pytest.fixture(autouse=True)
def logger_as_it_was() -> Iterator[None]:
    before = [*OURS.handlers], OURS.level, OURS.propagate
    OURS.handlers[:] = []  # what pytest keeps must be UTF-8
    yield
    OURS.handlers[:], OURS.level, OURS.propagate = before
    OURS.setLevel(before[1])


def test_json_is_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(log_format=LogFormat.JSON)
    LOG.info("%s is here", "ä\n\ud800")
    try:
        raise ValueError("what went wrong")
    except ValueError:
        LOG.exception("a bug")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"]) == ("INFO", "trio_gateway.test")
    assert first["message"] == "ä\n\\ud800 is here"
    assert first["time"].endswith("+00:00")
    assert second["message"] == "a bug"
    assert second["exception"].endswith("ValueError: what went wrong")


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    LOG.warning("take care")
    assert capsys.readouterr().err.endswith(" WARNING take care\n")


def test_the_last_lines_are_kept_from_the_first_on_and_what_engines_print_is_not() -> None:
    configure_logging(verbose=True)
    LOG.info("early")
    with line_keeper() as keeper:
        logging.getLogger(f"{ENGINE_LOGGERS}m:4096").debug("m:4096 | a line of an engine")
        logging.getLogger(f"{ENGINE_LOGGERS}m:4096").info("of the gateway")
        assert [line.text for line in keeper.lines] == ["early", "of the gateway"]
        for number in range(KEPT):
            LOG.debug("%d", number)
        assert len(keeper.lines) == KEPT
        assert keeper.lines[0].text == "0"
    assert keeper in OURS.handlers


def test_where_nobody_configured_it_lines_are_kept_for_as_long_as_they_are_wanted() -> None:
    with line_keeper() as keeper:
        LOG.warning("take care")
        assert [line.text for line in keeper.lines] == ["take care"]
        assert keeper in OURS.handlers
    assert keeper not in OURS.handlers
