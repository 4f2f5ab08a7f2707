"""`trio-gateway doctor --start`: engines are started for real, asked, and none is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.harness import configuration, fake_variant, model, real_variant
from tests.support.patience import eventually
from trio_gateway.engine.ledger.file import LedgerFile

FAILS = fake_variant("--exit-at-start", "3")


@contextmanager
def running_doctor(folder: Path, text: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "gateway.lua").write_text(text)
    # Other tests run gateways at the same time.
    argv = [sys.executable, "-m", "trio_gateway", "doctor", "--start", "--anyway", *options]
    with subprocess.Popen(
        [*argv, "-c", str(folder / "gateway.lua")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(folder)},
    ) as doctor:
        try:
            yield doctor
        finally:
            doctor.kill()


def runs(process: psutil.Process, word: str) -> bool:
    try:
        return word in process.cmdline()
    except psutil.Error:
        return False


def test_each_variant_is_tried_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    text = configuration(model("bad", FAILS), model("smol", real_variant(640)))
    with running_doctor(tmp_path, text, "--json") as doctor:
        said, told = doctor.communicate()
    found = json.loads(said)
    bad, smol = found["variants"]
    assert doctor.returncode == 2
    assert "exited with code 3" in bad["failure"]
    assert bad["output"]
    assert (smol["failure"], smol["asked"]["works"], smol["context"]) == ("", True, 640)
    assert smol["restore"]["works"] is True, smol
    assert smol["tools"]["works"] is not None
    assert smol["images"]["works"] is None
    for name in ("load_s", "memory_bytes", "prompt_speed", "speed"):
        assert smol[name] > 0
    assert told.splitlines() == ["bad:4096: it did not start", "smol:640: tried"]
    (entry,) = LedgerFile(tmp_path / "trio-gateway" / "ledger.json").read().values()
    assert entry.name == "smol:640"
    assert entry.memory_bytes == smol["memory_bytes"]
    assert entry.restore is not None
    assert entry.restore.helps
    assert entry.speed is not None


def test_a_signal_leaves_no_engine(tmp_path: Path) -> None:
    quick, slow = fake_variant(), fake_variant("--load-s", "60")
    text = configuration(model("first", FAILS), model("quick", quick), model("slow", slow))
    family: list[psutil.Process] = []
    with running_doctor(tmp_path, text) as doctor:

        def loads() -> bool:
            family[:] = psutil.Process(doctor.pid).children(recursive=True)
            return any(runs(process, "60") for process in family)

        assert eventually(loads, within_s=30.0)
        doctor.send_signal(signal.SIGINT)
        said, _ = doctor.communicate()
    assert doctor.returncode == 128 + signal.SIGINT
    assert not [process for process in family if process.is_running()]
    assert re.search(r"^first:4096 .* failed", said, re.MULTILINE)  # what was tried by then
    assert re.search(r"^quick:4096 ", said, re.MULTILINE)
    assert "slow:4096" not in said
