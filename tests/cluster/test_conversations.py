"""A conversation stays at the replica that has read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.ray_gateway import gateway, model, variant
from tests.support.ray_nodes import START_S, Nodes

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

PATH = "/v1/chat/completions"
TURNS = 20
# Not where the gateway's proxy is: Serve's own choice would prefer a replica there.
FAR = "resources = { CPU = 0.3, far = 1 }"
SAID = "We walk along the river, past the mill, and talk of ships and stars. " * 4


class Chat:
    """`cached`: tokens of its prompts that were read in an earlier turn."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client, self._name = client, name
        self._messages: list[dict[str, Any]] = []
        self.cached = 0

    def turn(self) -> None:
        said = {"role": "user", "content": f"{len(self._messages)}: {SAID}"}
        self._messages.append(said)
        body = {"model": self._name, "messages": self._messages, "max_tokens": 4}
        answer = self._client.post(PATH, json=body).raise_for_status().json()
        self._messages.append(answer["choices"][0]["message"])
        self.cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    def leave_streams(self) -> None:
        """More than its replica has places, one after the other."""
        more = {"max_tokens": 1500, "stream": True}
        body = {"model": self._name, "messages": self._messages, **more}
        for _ in range(3):
            with self._client.stream("POST", PATH, json=body) as answer:
                next(answer.iter_bytes())


def test_two_replicas_read_hardly_more_than_one(tmp_path: Path, nodes: Nodes) -> None:
    """Chosen by chance, they read the last turn twice each time, and the longer one of it."""
    models = [model(f"m{n}", variant(4096, f"{FAR}, replicas = {n}")) for n in (1, 2)]
    cached, pids = {}, list[int]()
    with gateway(tmp_path, *models) as running, running.client(START_S) as client:
        for name in ("m2", "m1"):
            chat = Chat(client, name)
            for number in range(TURNS):
                chat.turn()
                if number == TURNS // 2:
                    chat.leave_streams()
            cached[name] = chat.cached
            pids = pids or nodes.replicas("-m2-")
        # They were written back with the other one's, and went on as they were.
        assert len(pids) == 2
        assert {*nodes.replicas("-m2-")} == {*pids}
    assert cached["m1"] > 0
    assert cached["m2"] >= 0.97 * cached["m1"]
