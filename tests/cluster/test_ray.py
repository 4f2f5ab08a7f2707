"""A gateway with engines on a real Ray cluster of two nodes: what works, and what may fail."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.harness import GatewayProcess, broken_off, chat_body, running_gateway
from tests.support.patience import eventually
from tests.support.ray_nodes import ADDRESS, Nodes, engines

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

LONG_S = 180.0
OTHERS = {
    "name": "others", "route_prefix": "/others",
    "import_path": "trio_gateway.cluster.replica:build",
    "args": {"command": ["python3", "-m", "http.server", "${PORT}"]},
    "deployments": [{"name": "engine", "ray_actor_options": {"num_cpus": 0}}],
}  # fmt: skip


def model(name: str, *variants: str, address: str = ADDRESS) -> str:
    of_all = f'name = "{name}", engine = presets.engines.ray, address = "{address}"'
    return f"{{ {of_all}, variants = {{ {', '.join(variants)} }} }}"


def variant(context: int, more: str = "resources = { CPU = 0.4 }", gguf: str = "") -> str:
    file = f'"{gguf}"' if gguf else "presets.models.smollm2"
    args = f'"-m", {file}, "-c", "{2 * context}", "-np", "2"'
    command = f'binary = "trio-gateway-llama-server", args = {{ {args} }}'
    return f"{{ {command}, context = {context}, {more} }}"


def gateway(
    tmp_path: Path, *models: str, pools: str = "", more: str = ""
) -> AbstractContextManager[GatewayProcess]:
    config = (
        f'server = {{ listen_v4 = "127.0.0.1:0", engine_startup_timeout = {LONG_S:g} {more} }}\n'
        f"models = {{ {', '.join(models)} }}\npools = {{ {pools} }}\n"
    )
    return running_gateway(tmp_path, config)


def said(running: GatewayProcess, name: str, **fields: Any) -> tuple[int, str]:
    with running.client(LONG_S) as client:
        answer = client.post("/v1/chat/completions", json=chat_body(name, **fields))
    if answer.status_code != 200:
        return answer.status_code, str(answer.json()["error"]["message"])
    return 200, str(answer.json()["choices"][0]["message"]["content"])


@pytest.fixture(autouse=True)
def nothing_is_left(nodes: Nodes) -> object:
    yield

    def left() -> list[str]:
        if nodes.is_headless:
            return []
        return [name for name in nodes.applications() if "trio-gateway-" in name]

    eventually(lambda: not engines() and not left(), 60.0)
    assert (engines(), left()) == ([], [])


def test_a_chat_and_a_stream_that_its_client_leaves(tmp_path: Path, nodes: Nodes) -> None:
    nodes.put(OTHERS)
    eventually(lambda: bool(nodes.replicas("others")), 60)
    (before,) = nodes.replicas("others")
    with gateway(tmp_path, model("m", variant(2048))) as running:
        assert said(running, "m")[0] == 200
        body = chat_body("m", stream=True, max_tokens=1500)
        with (
            running.client(LONG_S) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            assert b"data:" in next(answer.iter_bytes())
        with running.client() as client:  # left in the middle: its slot is free soon

            def is_free() -> bool:
                slots = client.get("/slots", params={"model": "m"}).json()
                return not any(slot["is_processing"] for slot in slots)

            eventually(is_free, 10.0)
            assert is_free()
        assert nodes.replicas("others") == [before]
    assert nodes.replicas("others") == [before]
    nodes.put()


def test_growth_to_a_larger_variant_and_a_swap(tmp_path: Path, nodes: Nodes) -> None:
    models = (model("a", variant(512), variant(2048)), model("b", variant(1024)))
    with gateway(tmp_path, *models, pools="ray = { engines = 1 }") as running:
        for name, tokens, start in (("a", 8, "-a-512"), ("a", 600, "-a-2048"), ("b", 8, "-b-")):
            prompt = "word " * tokens if tokens > 8 else "Hi"
            body = chat_body(name, prompt, max_tokens=8)
            with running.client(LONG_S) as client:
                assert client.post("/v1/chat/completions", json=body).status_code == 200
            assert len(nodes.replicas(start)) == 1
            eventually(lambda: len(engines()) == 1, 30.0)


def test_a_replica_that_is_killed_in_mid_stream(tmp_path: Path, nodes: Nodes) -> None:
    with gateway(tmp_path, model("m", variant(2048))) as running:
        assert said(running, "m")[0] == 200
        (pid,) = nodes.replicas("-m-")
        body = chat_body("m", stream=True, max_tokens=1500)
        with (
            running.client(LONG_S) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            pieces = answer.iter_bytes()
            next(pieces)
            os.kill(pid, signal.SIGKILL)
            assert "closed the connection" in broken_off(pieces)
        eventually(lambda: not engines(), 3.0)
        assert said(running, "m")[0] == 200


def test_what_cannot_be_deployed_and_what_has_no_room(tmp_path: Path, nodes: Nodes) -> None:
    models = (
        model("bad", variant(1024, gguf="/nowhere.gguf")),
        model("gpu", variant(1024, "resources = { GPU = 1 }")),
        model("away", variant(1024), address="http://127.0.0.1:9"),
        model("good", variant(1024)),
    )
    with gateway(tmp_path, *models) as running:
        with running.client(LONG_S) as client:
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


def test_a_gateway_that_is_killed(tmp_path: Path, nodes: Nodes) -> None:
    kept, dropped = model("kept", variant(1024)), model("dropped", variant(1024))
    with gateway(tmp_path, kept, dropped) as running:
        assert said(running, "kept")[0] == said(running, "dropped")[0] == 200
        (pid,) = nodes.replicas("-kept-")
        running.process.kill()
    assert len(engines()) == 2
    with gateway(tmp_path, kept) as running:
        running.wait_for_line("kept:1024 was found running")
        eventually(lambda: not nodes.replicas("-dropped-"), 30.0)
        assert nodes.replicas("-dropped-") == []
        assert said(running, "kept")[0] == 200
        assert nodes.replicas("-kept-") == [pid]


def test_replicas_come_and_go_with_the_load(tmp_path: Path, nodes: Nodes) -> None:
    more = "resources = { CPU = 0.4 }, replicas = { min = 1, max = 2 }"
    with gateway(tmp_path, model("m", variant(2048, more))) as running:
        assert said(running, "m")[0] == 200
        done = threading.Event()

        def work() -> None:
            while not done.is_set():
                said(running, "m", max_tokens=200)

        with ThreadPoolExecutor(6) as pool:
            for _ in range(6):
                pool.submit(work)
            try:
                running.wait_for_line("m:2048: 4 at a time", 120)
            finally:
                done.set()
        running.wait_for_line("m:2048: 2 at a time", 150)
        assert len(nodes.replicas("-m-")) == 1


def test_a_node_that_is_lost(tmp_path: Path, nodes: Nodes) -> None:
    more = 'resources = { CPU = 0.4 }, replicas = 2, placement = "spread"'
    with gateway(tmp_path, model("m", variant(1024, more))) as running:
        assert said(running, "m")[0] == 200
        eventually(lambda: len(nodes.replicas("-m-")) == 2, 60)
        nodes.kill_worker()
        running.wait_for_line("m:1024: 2 at a time", 120)
        assert said(running, "m")[0] == 200
        nodes.start_worker()
        running.wait_for_line("m:1024: 4 at a time", 120)


def test_the_head_is_lost(tmp_path: Path, nodes: Nodes) -> None:
    """The last one: after it there is no cluster."""
    with gateway(tmp_path, model("m", variant(1024))) as running:
        assert said(running, "m")[0] == 200
        nodes.kill_head()
        with running.client(LONG_S) as client:
            eventually(
                lambda: client.post("/v1/chat/completions", json=chat_body("m")).status_code == 503,
                LONG_S,
            )
            answer = client.post("/v1/chat/completions", json=chat_body("m"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    for process in psutil.process_iter(["cmdline"]):
        if any("raylet" in word for word in process.info["cmdline"] or []):
            process.kill()
