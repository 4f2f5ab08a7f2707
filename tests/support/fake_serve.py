"""Ray Serve's REST interface, as far as the gateway uses it: one cluster, in a few lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "ray_serve.json").read_text()
)


class FakeServe:
    """`applications`: by name, as Serve shows them. `written`: what was PUT, in order. `wanted`:
    the headers of the last request. `on_put` may change what happens to a write; `refuse` is a
    status that all get. `silent_to`: the methods that it takes and does not answer, each of which
    sets `ignored`."""

    def __init__(self) -> None:
        self.applications: dict[str, dict[str, Any]] = {}
        self.written: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.on_put: Callable[[dict[str, Any]], None] = self.apply
        self.refuse: int | None = None
        self.silent_to: Collection[str] = ()
        self.ignored = trio.Event()
        self.usage: Any = RECORDED["usage"]
        self.url = ""

    def apply(self, body: dict[str, Any]) -> None:
        """All of it runs at once, and what is not in it is gone."""
        wanted = {config["name"]: config for config in body["applications"]}
        self.applications = {
            name: shown
            for name, shown in self.applications.items()
            if name in wanted or shown["source"] != "declarative"
        }
        for name, config in wanted.items():
            self.applications[name] = running(config)

    async def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method in self.silent_to:
            self.ignored.set()
            await trio.sleep_forever()
        if self.refuse is not None:
            return self.refuse, "no"
        if path == "/api/cluster_status":
            return 200, self.usage
        if method == "PUT":
            told = json.loads(body)
            self.written.append(told)
            self.on_put(told)
        return 200, {"applications": self.applications, "target_capacity": 80.0}

    async def __call__(self, stream: trio.SocketStream) -> None:
        async with stream:
            read = b""
            while b"\r\n\r\n" not in read:
                if not (some := await stream.receive_some()):
                    return
                read += some
            head, _, body = read.partition(b"\r\n\r\n")
            line, *rows = head.decode().split("\r\n")
            pairs = (row.split(": ", 1) for row in rows)
            self.headers = {name.lower(): value for name, value in pairs}
            while len(body) < int(self.headers.get("content-length", "0")):
                body += await stream.receive_some()
            method, path, _ = line.split()
            status, value = await self.answer(method, path, body)
            said = json.dumps(value).encode()
            answer = f"HTTP/1.1 {status} -\r\nContent-Length: {len(said)}\r\nConnection: close"
            await stream.send_all(f"{answer}\r\n\r\n".encode() + said)


def running(config: dict[str, Any], replicas: int = 1) -> dict[str, Any]:
    """An application as Serve shows it."""
    return {
        "status": "RUNNING",
        "message": "",
        "source": "declarative",
        "deployed_app_config": config,
        "deployments": {"engine": {"replicas": [{"state": "RUNNING", "pid": 7}] * replicas}},
    }


@asynccontextmanager
async def open_fake_serve() -> AsyncIterator[FakeServe]:
    fake = FakeServe()
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, fake, 0, host="127.0.0.1")
        (listener, *_) = await nursery.start(serve)
        fake.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        yield fake
        nursery.cancel_scope.cancel(reason="the test is over")
