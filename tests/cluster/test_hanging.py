"""The dashboard of a real Ray cluster takes connections, and answers none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.harness import chat_body, fake_model
from tests.support.ray_gateway import gateway, model, said, variant
from tests.support.ray_nodes import START_S, Nodes, becomes, engines

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


@contextmanager
def frozen(nodes: Nodes) -> Iterator[None]:
    nodes.freeze_dashboard()
    try:
        yield
    finally:
        nodes.thaw_dashboard()


def test_at_a_start_and_while_it_runs(tmp_path: Path, nodes: Nodes) -> None:
    with gateway(tmp_path, model("m", variant(1024)), fake_model("here")) as running:
        with frozen(nodes), running.client(START_S) as client:
            answer = client.post("/v1/chat/completions", json=chat_body("m"))
            assert answer.status_code == 503
            assert "no answer within 10 s" in answer.json()["error"]["message"]
            assert int(answer.headers["retry-after"]) >= 1
            assert said(running, "here")[0] == 200
        assert becomes(lambda: said(running, "m")[0] == 200)
        with frozen(nodes):
            running.wait_for_line("m:1024: ready")
            assert said(running, "m")[0] == 200  # its proxy needs no dashboard
        assert said(running, "m")[0] == 200


def test_at_the_end(tmp_path: Path, nodes: Nodes) -> None:
    with gateway(tmp_path, model("m", variant(1024))) as running:
        assert said(running, "m")[0] == 200
        (name,) = (name for name in nodes.applications() if "-m-" in name)
        with frozen(nodes):
            assert running.stop() == 0
        running.wait_for_line(f"{name} stays on the cluster at .*`trio-gateway cluster clean`")
    assert len(engines()) == 1
    clean = (sys.executable, "-m", "trio_gateway", "cluster", "clean", "-c")
    done = subprocess.run(
        [*clean, str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=START_S
    )
    assert f"took out {name}" in done.stdout, done.stderr
