"""What leads a Ray cluster is lost: its head, for good, for a while, or to those who ask it."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from tests.support.harness import GatewayProcess, broken_off, chat_body
from tests.support.ray_gateway import ON_WORKER, gateway, model, said, variant
from tests.support.ray_nodes import START_S, Memory, Nodes, becomes, engines

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def refused(running: GatewayProcess, name: str) -> httpx.Response:
    """The first answer of its kind."""
    with running.client(START_S) as client:
        body = chat_body(name)

        def is_unavailable() -> bool:
            answers.append(client.post("/v1/chat/completions", json=body))
            return answers[-1].status_code == 503

        answers: list[httpx.Response] = []
        assert becomes(is_unavailable)
    return answers[-1]


@pytest.mark.parametrize("memory", [Memory.REDIS, Memory.DISK])
def test_a_head_that_comes_back_and_knows_all(
    tmp_path: Path, machines: Nodes, memory: Memory
) -> None:
    if memory is Memory.REDIS and shutil.which("redis-server") is None:
        pytest.skip("no redis-server here")
    nodes = machines
    nodes.ensure(memory=memory)
    with gateway(tmp_path, model("m", variant(1024, ON_WORKER))) as running:
        assert said(running, "m")[0] == 200
        (pid,) = nodes.replicas("-m-")
        nodes.lose_head()
        answer = refused(running, "m")
        assert int(answer.headers["retry-after"]) >= 1
        assert "nothing answers" in answer.json()["error"]["message"]
        nodes.start_head()
        assert becomes(lambda: said(running, "m")[0] == 200)
        assert nodes.replicas("-m-") == [pid]


def test_a_head_that_is_out_of_reach_for_a_while(tmp_path: Path, nodes: Nodes) -> None:
    with gateway(tmp_path, model("m", variant(1024, ON_WORKER))) as running:
        assert said(running, "m")[0] == 200
        body = chat_body("m", stream=True, max_tokens=900)
        with (
            running.client(START_S) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            pieces = answer.iter_bytes()
            next(pieces)
            nodes.head.unplug()
            try:
                assert "did not answer" in broken_off(pieces)
                assert int(refused(running, "m").headers["retry-after"]) >= 1
            finally:
                nodes.head.plug_in()
        assert becomes(lambda: said(running, "m")[0] == 200)


def test_a_head_that_comes_back_and_knows_nothing(tmp_path: Path, nodes: Nodes) -> None:
    with gateway(tmp_path, model("m", variant(1024, ON_WORKER))) as running:
        assert said(running, "m")[0] == 200
        nodes.lose_head()
        assert int(refused(running, "m").headers["retry-after"]) >= 1
        assert becomes(lambda: not engines())  # the other node has waited for its head in vain
        nodes.worker.switch_off()
        nodes.start_head()
        nodes.start_worker()
        assert becomes(lambda: said(running, "m")[0] == 200)
        assert len(nodes.replicas("-m-")) == 1
