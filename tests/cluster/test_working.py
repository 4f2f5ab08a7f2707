"""A gateway with engines on a real Ray cluster of two nodes: what works."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.harness import chat_body
from tests.support.ray_gateway import OTHERS, TINY, gateway, model, said, variant
from tests.support.ray_nodes import START_S, Nodes, becomes, engines

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def test_a_chat_and_a_stream_that_its_client_leaves(tmp_path: Path, nodes: Nodes) -> None:
    nodes.put(OTHERS)
    assert becomes(lambda: bool(nodes.replicas("others")))
    (before,) = nodes.replicas("others")
    with gateway(tmp_path, model("m", variant(2048))) as running:
        assert said(running, "m")[0] == 200
        body = chat_body("m", stream=True, max_tokens=1500)
        with (
            running.client(START_S) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            assert b"data:" in next(answer.iter_bytes())
        with running.client() as client:  # left in the middle: its slot is free soon

            def is_free() -> bool:
                slots = client.get("/slots", params={"model": "m"}).json()
                return not any(slot["is_processing"] for slot in slots)

            assert becomes(is_free, 10.0)
        assert nodes.replicas("others") == [before]
    assert nodes.replicas("others") == [before]
    nodes.put()


def test_growth_to_a_larger_variant_and_a_swap(tmp_path: Path, nodes: Nodes) -> None:
    models = (model("a", variant(512), variant(2048)), model("b", variant(1024)))
    with gateway(tmp_path, *models, pools="ray = { engines = 1 }") as running:
        for name, tokens, start in (("a", 8, "-a-512"), ("a", 600, "-a-2048"), ("b", 8, "-b-")):
            prompt = "word " * tokens if tokens > 8 else "Hi"
            body = chat_body(name, prompt, max_tokens=8)
            with running.client(START_S) as client:
                assert client.post("/v1/chat/completions", json=body).status_code == 200
            assert len(nodes.replicas(start)) == 1
            assert becomes(lambda: len(engines()) == 1)


def test_a_gateway_that_is_killed(tmp_path: Path, nodes: Nodes) -> None:
    kept, dropped = model("kept", variant(1024)), model("dropped", variant(1024))
    with gateway(tmp_path, kept, dropped) as running:
        assert said(running, "kept")[0] == said(running, "dropped")[0] == 200
        (pid,) = nodes.replicas("-kept-")
        running.process.kill()
    assert len(engines()) == 2
    with gateway(tmp_path, kept) as running:
        running.wait_for_line("kept:1024 was found running", START_S)
        assert becomes(lambda: not nodes.replicas("-dropped-"))
        assert said(running, "kept")[0] == 200
        assert nodes.replicas("-kept-") == [pid]


def test_replicas_come_and_go_with_the_load(tmp_path: Path, nodes: Nodes) -> None:
    more = f"{TINY}, replicas = {{ min = 1, max = 2 }}"
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
                running.wait_for_line("m:2048: 4 at a time", START_S)
            finally:
                done.set()
        running.wait_for_line("m:2048: 2 at a time", START_S)
        assert len(nodes.replicas("-m-")) == 1
