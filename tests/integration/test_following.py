"""A gateway that is followed: a swap is seen as it happens, the lines of an engine that is gone are
there, and whoever follows is let go at once when it stops."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import (
    HYPERCORN,
    SERVE,
    GatewayProcess,
    configuration,
    fake_model,
    running_gateway,
)
from tests.support.patience import eventually

pytestmark = pytest.mark.untraced  # what it goes through, quicker tests count
COMMANDS = {
    "serve": (SERVE, r"Base URL for clients: (\S+)/v1"),
    "hypercorn": (
        (*HYPERCORN, "-k", "trio", "-b", "127.0.0.1:0", "trio_gateway.app:app"),
        r"Running on (\S+)",
    ),
}


class Follower(threading.Thread):
    """`events`: the names and the data of what came. `over_at`: when the stream ended."""

    def __init__(self, gateway: GatewayProcess) -> None:
        super().__init__(daemon=True)
        self._gateway = gateway
        self.events: list[tuple[str, Any]] = []
        self.over_at: float | None = None
        self.start()
        assert eventually(lambda: bool(self.events), 10)

    def run(self) -> None:
        name = ""
        with (
            self._gateway.client() as client,
            client.stream("GET", "/gateway/events") as response,
        ):
            for line in response.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    self.events.append((name, json.loads(value)))
        self.over_at = time.monotonic()

    def moments(self) -> list[tuple[str, str]]:
        found = [data for name, data in [*self.events] if name == "moment"]
        return [(moment["model"], moment["change"]) for moment in found]


def outcomes(follower: Follower) -> list[str]:
    found = [data for name, data in [*follower.events] if name == "request"]
    return [request["outcome"] for request in found if "outcome" in request]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_swap_is_followed_to_the_end_of_the_gateway(tmp_path: Path, command: str) -> None:
    argv, ready = COMMANDS[command]
    config = configuration(fake_model("a"), fake_model("b", "--crash-after", "0"))
    with running_gateway(tmp_path, config, command=argv, ready=ready) as gateway:
        follower = Follower(gateway)
        assert gateway.chat("a").status_code == 200
        assert gateway.chat("b").status_code == 502
        swap = [
            ("a", "starting"), ("a", "ready"), ("a", "stopping"), ("a", "gone"),
            ("b", "starting"), ("b", "ready"), ("b", "gone"),
        ]  # fmt: skip
        assert eventually(lambda: follower.moments()[:7] == swap, 5), follower.moments()
        assert eventually(lambda: len(outcomes(follower)) == 2, 5)
        assert outcomes(follower) == ["ok", "failed"]
        with gateway.client() as client:
            lines = client.get("/gateway/logs?engine=b").text.splitlines()
            assert "fake engine: listening" in [json.loads(line)["text"] for line in lines]
            own = client.get("/gateway/logs?lines=2000").text
            assert "b:4096" in own
            states = {m["name"]: m["state"] for m in client.get("/gateway/models").json()["models"]}
        assert states["a"] == "unloaded"
        begun = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        assert eventually(lambda: follower.over_at is not None, 5)
        assert follower.over_at is not None
        assert follower.over_at - begun < 2  # of a grace of 5 s


def test_who_follows_logs_is_let_go_as_well(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(fake_model("a"))) as gateway:
        path = "/gateway/logs?engine=a&follow=1"
        with gateway.client() as client, client.stream("GET", path) as response:
            lines = filter(None, response.iter_lines())
            assert gateway.chat("a").status_code == 200
            assert json.loads(next(lines))["text"] == "fake engine: listening"
            gateway.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            rest = [*lines]
        assert time.monotonic() - begun < 2
        assert all(json.loads(line)["source"] == "a:4096" for line in rest)
