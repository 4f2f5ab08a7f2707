"""The tests' own promises: what they may start, where they write, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.isolation import FOLDERS, OF_A_TERMINAL, RUN, end_what_is_left


def test_a_test_without_the_mark_cannot_start_a_process(refused_processes: list[str]) -> None:
    with pytest.raises(AssertionError, match="marked `processes`"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert len(refused_processes) == 1
    refused_processes.clear()


def test_the_users_folders_are_out_of_reach(tmp_path_factory: pytest.TempPathFactory) -> None:
    ours = tmp_path_factory.getbasetemp()
    assert all(Path(os.environ[name]).is_relative_to(ours) for name in FOLDERS)
    assert Path.home().is_relative_to(ours)


def test_no_signal_of_a_terminal_is_ignored() -> None:
    assert signal.SIG_IGN not in {signal.getsignal(number) for number in OF_A_TERMINAL}


@pytest.mark.processes
def test_what_is_left_at_the_end_is_ended_and_named() -> None:
    mine = {**os.environ, RUN: "of this test"}
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=mine,
    ) as left:
        assert left.stdout is not None
        left.stdout.readline()
        (named,) = end_what_is_left("of this test", within_s=0.1)
        assert str(left.pid) in named
        assert "test_what_is_left_at_the_end" in named
        assert not psutil.pid_exists(left.pid)
