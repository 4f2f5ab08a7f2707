"""The records of runs: which one did not end in order, and what still runs of it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trio_gateway.engine.process.reaper_program import born_of
from trio_gateway.engine.process.runs import Run, RunEngine, Runs

pytestmark = pytest.mark.processes


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def record(folder: Path, **other: Any) -> Path:
    """Of a gateway that is no more, unless something else is said."""
    begun = Runs(folder).begin(Path("gateway.lua"))
    assert begun is not None
    run = msgspec.structs.replace(msgspec.json.decode(begun[1], type=Run), born=1, **other)
    path = Path(begun[0])
    path.write_bytes(msgspec.json.encode(run) + b"\n what was there before")
    return path


def test_of_a_run_that_ended_in_order_nothing_is_said(runs: Runs, tmp_path: Path) -> None:
    assert runs.begin(Path("gateway.lua")) is not None  # the file is its reaper's to make
    assert runs.take_left() == []
    assert Runs(tmp_path / "none").take_left() == []


def test_a_run_whose_gateway_is_gone_is_told_once(runs: Runs, tmp_path: Path) -> None:
    record(tmp_path, ended_at=2.0, began_at=2.0, ended=("a:1",))
    record(tmp_path, ended_at=1.0, began_at=1.0)
    first, last = runs.take_left()
    assert (first.run.ended_at, last.run.ended) == (1.0, ("a:1",))
    assert last.run.source == os.path.abspath("gateway.lua")
    assert not last.is_of_before
    assert runs.take_left() == []
    assert not list(tmp_path.iterdir())


def test_an_engine_that_still_runs_is_ended_and_no_other_process(
    runs: Runs, tmp_path: Path
) -> None:
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as engine,
        subprocess.Popen(["sleep", "60"], start_new_session=True) as other,
    ):
        ours = RunEngine(engine.pid, "a:1", born_of(engine.pid))
        record(tmp_path, engines=(ours, RunEngine(other.pid, "b:1", 1), RunEngine(1, "c:1", None)))
        (left,) = runs.take_left()
        assert left.found == ("a:1",)
        assert left.run.ended_at is None
        assert engine.wait() == -signal.SIGTERM
        assert other.poll() is None
        other.kill()


def test_a_gateway_that_runs_is_left_alone_with_its_reaper_or_without(
    runs: Runs, tmp_path: Path
) -> None:
    alive = record(tmp_path)
    begun = runs.begin(Path("gateway.lua"))
    assert begun is not None
    alive.write_text(begun[1])
    assert runs.take_left() == []
    with alive.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        began = time.monotonic()
        assert runs.take_left() == []
        assert time.monotonic() - began < 1
    assert alive.exists()


def test_the_reaper_of_a_gateway_that_was_killed_is_waited_for(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(tmp_path)
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def end_its_work(seconds: float) -> None:
            run = msgspec.json.decode(path.read_bytes().partition(b"\n")[0], type=Run)
            told = msgspec.structs.replace(run, ended_at=3.0, ended=("a:1",))
            file.write(msgspec.json.encode(told) + b"\n")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_UN)

        monkeypatch.setattr(time, "sleep", end_its_work)
        (left,) = runs.take_left()
    assert left.run.ended == ("a:1",)


@pytest.mark.parametrize(
    ("told", "is_told"),
    [
        ({"machine": "an earlier start"}, True),
        ({"machine": "another", "host": "another"}, False),  # a home on a network
        ({"machine": "another", "host": "another", "began_at": 0.0}, True),
        ({"version": 2}, False),  # a later gateway's
    ],
)
def test_what_is_of_another_start_or_machine(
    runs: Runs, tmp_path: Path, told: dict[str, Any], *, is_told: bool
) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as bystander:
        same = RunEngine(bystander.pid, "a:1", born_of(bystander.pid))
        record(tmp_path, engines=(same,), **told)
        assert [(left.is_of_before, left.found) for left in runs.take_left()] == (
            [(True, ())] if is_told else []
        )
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null\n"])
def test_what_is_no_record_is_passed_over(runs: Runs, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "1-00000000.json"
    file.write_bytes(content)
    assert runs.take_left() == []
    assert file.exists()
    os.utime(file, (0, 0))
    assert runs.take_left() == []
    assert not file.exists()


def test_a_folder_a_pipe_and_a_link_in_its_place_do_no_harm(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "1-a.json").mkdir()
    os.mkfifo(tmp_path / "1-b.json")
    record(tmp_path).rename(tmp_path / "elsewhere")
    (tmp_path / "1-c.json").symlink_to(tmp_path / "elsewhere")
    assert runs.take_left() == []
    assert (tmp_path / "elsewhere").exists()


def test_without_a_place_there_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Runs(tmp_path / "file" / "runs").begin(Path("gateway.lua")) is None
