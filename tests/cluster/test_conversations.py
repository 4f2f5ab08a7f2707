"""A conversation stays at the replica that has read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import running_gateway
from tests.support.ray_nodes import ADDRESS, Nodes

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

LONG_S = 300.0
TURNS = 20
SAID = "We walk along the river, past the mill, and talk of ships and stars. " * 4


def model(name: str, replicas: int) -> str:
    engine = f'name = "{name}", engine = presets.engines.ray, address = "{ADDRESS}"'
    args = 'args = { "-m", presets.models.smollm2, "-c", "8192", "-np", "2" }, context = 4096'
    more = f"resources = {{ CPU = 0.4 }}, replicas = {replicas}"
    variant = f'{{ binary = "trio-gateway-llama-server", {args}, {more} }}'
    return f"{{ {engine}, variants = {{ {variant} }} }}"


class Chat:
    """`cached`: tokens of its prompts that were read in an earlier turn."""

    def __init__(self, client: httpx.Client, name: str, topic: str) -> None:
        self._client, self._name = client, name
        self._messages: list[dict[str, Any]] = [{"role": "system", "content": topic}]
        self.cached = 0

    def turn(self) -> None:
        said = {"role": "user", "content": f"{len(self._messages)}: {SAID}"}
        self._messages.append(said)
        body = {"model": self._name, "messages": self._messages, "max_tokens": 8}
        answer = self._client.post("/v1/chat/completions", json=body).raise_for_status().json()
        self._messages.append(answer["choices"][0]["message"])
        self.cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_two_replicas_read_hardly_more_than_one(tmp_path: Path, nodes: Nodes) -> None:
    config = (
        f'server = {{ listen_v4 = "127.0.0.1:0", engine_startup_timeout = {LONG_S:g} }}\n'
        f"models = {{ {model('one', 1)}, {model('two', 2)} }}\n"
    )
    cached, pids = {}, list[int]()
    with running_gateway(tmp_path, config) as running, running.client(LONG_S) as client:
        for name in ("two", "one"):
            chats = [Chat(client, name, topic) for topic in ("Be brief.", "Be kind.")]
            for _ in range(TURNS):
                for chat in chats:  # in turns: what is chosen for one says nothing of the other
                    chat.turn()
            cached[name] = sum(chat.cached for chat in chats)
            pids = pids or nodes.replicas("-two-4096-")
        # They were written back with the other one's, and went on as they were.
        assert len(pids) == 2
        assert {*nodes.replicas("-two-4096-")} == {*pids}
    assert cached["one"] > 0
    assert cached["two"] >= 0.9 * cached["one"]
