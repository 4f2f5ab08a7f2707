"""What is said of a run that did not end in order."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from trio_gateway.engine.process.runs import LeftRun, Run
from trio_gateway.server.aftermath import Aftermath, in_words

HEAD = "the last run (pid 7, /g.lua, begun at 2026-01-01 00:00:00)"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {1.0: "2026-01-01 00:00:00", 2.0: "2026-01-01 00:05:00"}
    monkeypatch.setattr("trio_gateway.server.aftermath._time", times.__getitem__)


def left(found: tuple[str, ...] = (), *, before: bool = False, **told: Any) -> LeftRun:
    run = Run(
        version=1, pid=7, born=3, began_at=1.0, source="/g.lua", host="h", machine="m", **told
    )
    return LeftRun(run, found, is_of_before=before)


@pytest.mark.parametrize(
    ("run", "kv", "unclosed", "words"),
    [
        (left(ended_at=2.0), (0, 0), False,
         "was killed, or crashed, at 2026-01-01 00:05:00; none of its engines was left"),
        (left(ended_at=2.0, ended=("a:1",)), (0, 0), False,
         "was killed, or crashed, at 2026-01-01 00:05:00; its reaper ended 1 engine (a:1)"),
        (left(ended_at=2.0, ended=("a:1", "b:2")), (2, 3 * 2**20), True,
         "was killed, or crashed, at 2026-01-01 00:05:00; its reaper ended 2 engines (a:1, b:2); "
         "2 files of saved caches (3 MiB) removed; its history was not closed; "
         "all that was written is there"),
        (left(("a:1", "b:1")), (1, 5), False,
         "was killed, with its reaper, nobody saw when; 2 engines (a:1, b:1) still ran, and were "
         "ended now; 1 file of saved caches (5 bytes) removed"),
        (left(before=True), (0, 0), False,
         "ended with the machine, which was started anew since; none of its engines was left"),
    ],
)  # fmt: skip
def test_in_words(run: LeftRun, kv: tuple[int, int], words: str, *, unclosed: bool) -> None:
    assert in_words(run, *kv, unclosed=unclosed) == f"{HEAD} {words}. All is cleared."


def test_each_run_is_a_line_and_the_last_one_is_shown(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    aftermath = Aftermath()
    aftermath.tell([], (3, 1))
    assert (aftermath.last_run, caplog.records) == (None, [])
    (tmp_path / "history.db-wal").touch()
    aftermath.look(tmp_path / "history.db")
    aftermath.tell([left(ended_at=2.0), left(("a:1",))], (3, 7))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    last = aftermath.last_run
    assert last is not None
    assert (last.found, last.removed_kv_files, last.history_unclosed) == (("a:1",), 3, True)
    assert last.summary == caplog.messages[1]
    assert "caches" not in caplog.messages[0]
