"""What may fail on a real Ray cluster, and what is seen of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.harness import broken_off, chat_body
from tests.support.ray_gateway import ON_WORKER, TINY, gateway, model, said, variant
from tests.support.ray_nodes import START_S, Nodes, becomes, engines

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def test_a_replica_that_is_killed_in_mid_stream(tmp_path: Path, nodes: Nodes) -> None:
    with gateway(tmp_path, model("m", variant(2048))) as running:
        assert said(running, "m")[0] == 200
        (pid,) = nodes.replicas("-m-")
        body = chat_body("m", stream=True, max_tokens=1500)
        with (
            running.client(START_S) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            pieces = answer.iter_bytes()
            next(pieces)
            os.kill(pid, signal.SIGKILL)
            assert "closed the connection" in broken_off(pieces)
        assert said(running, "m")[0] == 200
        assert pid not in nodes.replicas("-m-")
        assert becomes(lambda: len(engines()) == 1, 3.0)  # that of the killed one is gone


def test_what_cannot_be_deployed_and_what_has_no_room(tmp_path: Path, nodes: Nodes) -> None:
    models = (
        model("bad", variant(1024, gguf="/nowhere.gguf")),
        model("gpu", variant(1024, "resources = { GPU = 1 }")),
        model("away", variant(1024), address="http://127.0.0.1:9"),
        model("good", variant(1024)),
    )
    with gateway(tmp_path, *models) as running:
        with running.client(START_S) as client:
            bad = client.post("/v1/chat/completions", json=chat_body("bad"))
            gpu = client.post("/v1/chat/completions", json=chat_body("gpu"))
            away = client.post("/v1/chat/completions", json=chat_body("away"))
        assert bad.status_code == 502
        assert "/nowhere.gguf" in bad.json()["error"]["message"]
        assert gpu.status_code == away.status_code == 503
        assert "it needs 1 GPU, and no node has any" in gpu.json()["error"]["message"]
        assert "nothing answers" in away.json()["error"]["message"]
        assert int(gpu.headers["retry-after"]) >= 1
        assert int(away.headers["retry-after"]) >= 1
        assert said(running, "good")[0] == 200


def test_room_that_another_has(tmp_path: Path, nodes: Nodes) -> None:
    first, second = (model(n, variant(1024, "resources = { CPU = 0.6, far = 3 }")) for n in "ab")
    with gateway(tmp_path, first, second) as running:
        assert said(running, "a")[0] == 200
        status, why = said(running, "b")
        assert status == 503
        assert "it needs 3 far, and no node has more than 1 far free" in why
        assert f"{next(n for n in nodes.applications() if '-a-' in n)} has 3 far" in why


def test_serves_proxy_alone_is_down(tmp_path: Path, nodes: Nodes) -> None:
    with gateway(tmp_path, model("m", variant(1024))) as running:
        assert said(running, "m")[0] == 200
        (pid,) = nodes.replicas("-m-")
        for process in nodes.head.processes("ray::ProxyActor"):
            process.kill()
        assert becomes(lambda: said(running, "m")[0] == 200)
        assert nodes.replicas("-m-") == [pid]


def test_a_node_that_is_lost(tmp_path: Path, nodes: Nodes) -> None:
    more = f'{TINY}, replicas = 2, placement = "spread"'
    with gateway(tmp_path, model("m", variant(1024, more))) as running:
        assert said(running, "m")[0] == 200
        running.wait_for_line("m:1024: 4 at a time|m:1024: ready .* 4 ", START_S)
        nodes.worker.switch_off()
        seen = running.lines_so_far()
        running.wait_for_line("m:1024: 2 at a time", START_S, seen)
        assert said(running, "m")[0] == 200
        nodes.start_worker()
        running.wait_for_line("m:1024: 4 at a time", START_S, seen)


def test_a_node_that_is_lost_in_mid_stream(tmp_path: Path, nodes: Nodes) -> None:
    with gateway(tmp_path, model("m", variant(2048, ON_WORKER))) as running:
        assert said(running, "m")[0] == 200
        body = chat_body("m", stream=True, max_tokens=1500)
        with (
            running.client(START_S) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            pieces = answer.iter_bytes()
            next(pieces)
            nodes.worker.switch_off()
            assert "closed the connection" in broken_off(pieces)
        assert becomes(lambda: not engines())
        nodes.start_worker()
        assert said(running, "m")[0] == 200
