"""A gateway that was killed, and what the next one says of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.harness import configuration, fake_model, lua_string, running_gateway
from tests.support.patience import eventually


@pytest.mark.parametrize("reaper_too", [False, True], ids=["gateway", "gateway and reaper"])
def test_the_next_start_says_what_the_last_run_left(tmp_path: Path, *, reaper_too: bool) -> None:
    config = configuration(
        fake_model("m"),
        listen_unix=lua_string(str(tmp_path / "sock")),
        history=f"{{ file = {lua_string(str(tmp_path / 'history.db'))} }}",
    )
    with running_gateway(tmp_path, config) as killed:
        assert killed.chat("m").status_code == 200
        (engine,) = killed.engines()
        reaper = killed.reaper()
        eventually(Path(f"{tmp_path / 'history.db'}-wal").exists, within_s=10)
        if reaper_too:  # as systemd does it, or a machine that runs out of memory
            killed.send_signal(signal.SIGSTOP)
            os.kill(reaper.pid, signal.SIGKILL)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert engine.is_running() or not reaper_too
        with running_gateway(tmp_path, config) as gateway:
            assert not psutil.pid_exists(engine.pid) or engine.status() == psutil.STATUS_ZOMBIE
            line = gateway.wait_for_line(r"the last run \(pid (\d+), .*")
            gateway.wait_for_line(r"removed \S+sock, which a gateway that was killed had left")
            told = httpx.get(f"{gateway.base_url}/gateway/engines").json()["last_run"]
    assert int(line[1]) == told["pid"] == killed.process.pid
    assert told["summary"] in line[0]
    assert told["history_unclosed"]
    assert (told["ended"], told["found"]) == (([], ["m:4096"]) if reaper_too else (["m:4096"], []))
    assert (told["ended_at"] is None) == reaper_too
    assert not list((tmp_path / "state/trio-gateway/runs").iterdir())  # that one ended in order
