"""The reaper's program, in this process; as a process of its own see `test_serve.py`."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.support.harness import wait_until_gone
from trio_gateway.engine.process import reaper_program as reaper

pytestmark = pytest.mark.processes

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
)


@pytest.mark.parametrize(
    ("lines", "groups"),
    [
        ([], set()),
        ([b"+10\n", b"+11\n"], {10, 11}),
        ([b"+10\n", b"+11\n", b"-10\n"], {11}),
        ([b"-10\n", b"+10\n"], {10}),
        # A torn or strange line is nobody's group; 0 and 1 would be ours, and everybody's.
        ([b"+\n", b"+x\n", b"junk\n", b"+0\n", b"+1\n", b"+-5\n", b"+12"], {12}),
    ],
)
def test_it_keeps_the_groups_that_were_registered_and_not_taken_back(
    lines: list[bytes], groups: set[int]
) -> None:
    assert set(reaper.read_groups(lines)) == groups


def child(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program + "; time.sleep(60)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def run_main(monkeypatch: pytest.MonkeyPatch, written: bytes) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(written)))
    reaper.main()


def test_at_the_pipe_s_end_it_ends_every_group_and_kills_what_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child("import time") as willing, child(STUBBORN) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        processes = [psutil.Process(p.pid) for p in (willing, stubborn)]
        run_main(monkeypatch, b"+%d\n+%d\n" % (willing.pid, stubborn.pid))
        assert not wait_until_gone(processes, within_s=1)
        assert (willing.wait(), stubborn.wait()) == (-signal.SIGTERM, -signal.SIGKILL)


def test_a_stopped_process_is_woken_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with child("import time; print(1, flush=True)") as stopped:
        assert stopped.stdout is not None
        stopped.stdout.readline()
        os.kill(stopped.pid, signal.SIGSTOP)
        run_main(monkeypatch, b"+%d\n" % stopped.pid)
        assert stopped.wait() == -signal.SIGTERM


def test_a_group_that_is_gone_already_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with child("import sys, time; sys.exit()") as gone:
        gone.wait()
    run_main(monkeypatch, b"+%d\n" % gone.pid)


def record(folder: Path) -> dict[str, Any]:
    line, _, _ = (folder / "run.json").read_bytes().partition(b"\n")
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_record_says_what_ran_and_what_became_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(tmp_path / "run.json")
    monkeypatch.setattr(sys, "argv", ["reaper", path, '{"pid": 7}'])
    with child("import time") as willing, child("import time") as helper:
        before = reaper.Record(path, {"pid": 7})
        before.write({willing.pid: "a:1", helper.pid: ""})
        os.close(before._file)  # that reaper was killed
        (engine,) = record(tmp_path)["engines"]  # a helper is not worth telling
        assert engine == {"group": willing.pid, "name": "a:1", "born": reaper.born_of(willing.pid)}
        run_main(monkeypatch, b"+%d a:1\n+%d\n" % (willing.pid, helper.pid))
        assert (willing.wait(), helper.wait()) == (-signal.SIGTERM, -signal.SIGTERM)
    told = record(tmp_path)
    assert (told["pid"], told["engines"], told["ended"]) == (7, [], ["a:1"])
    assert abs(told["ended_at"] - time.time()) < 60


def test_a_run_that_ended_in_order_leaves_no_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["reaper", str(tmp_path / "run.json"), "{}"])
    run_main(monkeypatch, b"+99999999 a:1\n-99999999\n.\n")
    assert not list(tmp_path.iterdir())


def test_without_a_place_for_the_record_it_ends_engines_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["reaper", str(tmp_path / "none" / "run.json"), "{}"])
    with child("import time") as engine:
        run_main(monkeypatch, b"+%d a:1\n" % engine.pid)
        assert engine.wait() == -signal.SIGTERM


def test_without_groups_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run_main(monkeypatch, b"")
