"""What the tests' own workers send, and what is said at the end of a run that broke."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import source
from tests.support.isolation import RUN
from tests.support.reports import sendable

SURROGATE_AND_A_BUG = """
import logging

def test_says_what_is_no_utf8():
    logging.getLogger("any").warning("a name: \\ud800")
    print("\\ud800")

def test_ends_its_worker(request):
    request.node.user_properties.append(("no", object()))
"""


def test_lone_surrogates_are_escaped_wherever_they_are() -> None:
    report = {"a\ud800": [("Captured log", "b\udfff"), None, 1.5], "fine": "ä"}
    escaped = {"a\\ud800": [("Captured log", "b\\udfff"), None, 1.5], "fine": "ä"}
    assert sendable(report) == escaped


@pytest.mark.processes
@pytest.mark.slow
def test_a_surrogate_harms_no_worker_and_why_one_ended_stands_at_the_end(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "test_any.py").write_text(SURROGATE_AND_A_BUG)
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "-n", "1"]
    argv += ["--rootdir", str(tmp_path), str(tmp_path / "test_any.py")]
    env = {k: v for k, v in os.environ.items() if k != RUN}
    run = subprocess.run(argv, env=env, cwd=source.ROOT, capture_output=True, text=True, timeout=60)
    *_, said = run.stdout.split("the end of an internal error")
    *why, closing = said.splitlines()
    print(run.stdout[:-2000])
    assert run.returncode == pytest.ExitCode.INTERNAL_ERROR
    assert "1 passed" in closing
    assert "can't serialize <class 'object'>" in "\n".join(why)
