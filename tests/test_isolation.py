"""The tests' own promises: what they may start, where they write, and what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import source
from tests.support.harness import WAIT_S, started, wait_until_gone
from tests.support.isolation import FOLDERS, OF_A_TERMINAL, RUN, SETTINGS, end_what_is_left
from tests.support.patience import eventually


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


def test_the_users_settings_are_out_of_reach() -> None:
    """A key, an engine's option, a proxy: each would change what the tests see."""
    theirs = [
        "TRIO_GATEWAY_CONFIG",
        "GATEWAY_KEY",
        "LLAMA_API_KEY",
        "OPENAI_BASE_URL",
        "http_proxy",
    ]
    ours = ["TRIO_GATEWAY_TEST_BROWSER", RUN, "PATH", "CI", "LLVM_ROOT", "NO_PROXY"]
    assert [name for name in (*theirs, *ours) if SETTINGS.match(name)] == theirs
    assert [name for name in os.environ if SETTINGS.match(name)] == []


RUN_THAT_HANGS = """
import subprocess, sys, time
from pathlib import Path
import pytest

@pytest.mark.processes
def test_hangs(request):
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    process = subprocess.Popen(argv, start_new_session=True)
    file = Path({folder!r}, "pid.part")
    file.write_text(str(process.pid))
    file.rename(file.with_name("pid"))
    process.wait()
"""


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "number"),
    [([], signal.SIGINT), ([], signal.SIGKILL), (["-n", "1"], signal.SIGKILL)],
)
def test_what_a_test_started_ends_with_the_run(
    workers: list[str], number: signal.Signals, tmp_path: Path
) -> None:
    if workers:
        pytest.importorskip("xdist")
    (tmp_path / "test_hangs.py").write_text(RUN_THAT_HANGS.format(folder=str(tmp_path)))
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, *workers]
    argv += ["--rootdir", str(tmp_path), str(tmp_path / "test_hangs.py")]
    env = {k: v for k, v in os.environ.items() if k != RUN}
    with started(argv, env=env, cwd=source.ROOT, start_new_session=True) as run:
        file = tmp_path / "pid"
        assert eventually(file.exists, WAIT_S)
        left = psutil.Process(int(file.read_text()))
        run.send_signal(number)
        run.wait(WAIT_S)
        assert not wait_until_gone([left], within_s=5)
