"""The engine of a replica: what is left of it when its worker ends, and what it says before."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from tests.support.harness import wait_until_gone
from trio_gateway.cluster.engine_process import EngineGone, EngineProcess

pytestmark = pytest.mark.processes

# As a worker has it: it says the engine's pid, and lives until it is killed.
WORKER = """
import time
from trio_gateway.cluster.engine_process import EngineProcess
print(EngineProcess(["sh", "-c", "sleep 100 & wait"], {}, print).pid, flush=True)
time.sleep(100)
"""


def test_nothing_is_left_of_a_worker_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        engine = psutil.Process(int(worker.stdout.readline()))
        all_of_it = [engine, *engine.children()]
        worker.send_signal(signal.SIGKILL)
    assert wait_until_gone(all_of_it, 2.0) == []


def test_an_engine_that_ends_says_why_and_one_that_is_stopped_is_gone() -> None:
    said: list[str] = []
    ended = EngineProcess(["sh", "-c", "echo port $P; exit 3"], {"P": "${PORT}"}, said.append)
    ended._process.wait(5)
    with pytest.raises(EngineGone, match=f"exited with code 3; its last lines:\nport {ended.port}"):
        ended.check()
    assert said == [f"port {ended.port}"]
    running = EngineProcess(["sleep", "100"], {}, said.append)
    running.check()
    running.stop(5)
    with pytest.raises(EngineGone, match="killed by signal 15"):
        running.check()
    ended.stop(1)
