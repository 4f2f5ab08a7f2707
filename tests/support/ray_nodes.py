"""A Ray cluster of two nodes on one machine, each in a network namespace of its own.

Whoever starts it is in a network, a process and a user namespace already (`unshare -rn --pid`), as
`nox -s cluster` does: there it may make networks, no port of it is anybody else's, and all of it
ends with the tests.
"""

from __future__ import annotations

import enum
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.patience import is_too_long

WANTED = "TRIO_GATEWAY_TEST_CLUSTER"
HUB, HEAD, WORKER = "10.77.0.254", "10.77.0.1", "10.77.0.2"
ADDRESS = f"http://{HEAD}:8265"
APPLICATIONS = f"{ADDRESS}/api/serve/applications/"
# For what takes seconds on an idle machine: this one may be busy.
START_S = 300.0
FAR = '{"far": 4}'  # a resource that only the second node has
REDIS_PORT = "6380"
REDIS = ("redis-server", "--save", "", "--protected-mode", "no")
_RAY = str(Path(sys.executable).with_name("ray"))
_STORE = ("--object-store-memory", "80000000")
_ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's own is 15: an engine would starve on a busy machine
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": f"{START_S:.0f}",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": f"{START_S:.0f}",
    "PYTHONPATH": str(Path(__file__).parents[2]),  # applications of the tests' own
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}


def becomes(condition: Callable[[], bool], within_s: float = START_S) -> bool:
    """As `eventually`, for what takes seconds, and costs something to ask."""
    begun = time.monotonic()
    while not (result := condition()):
        if is_too_long(time.monotonic() - begun, within_s):
            break
        time.sleep(0.2)
    return result


class Memory(enum.Enum):
    """Where a head keeps what it knows, so that one that is started again knows it (GCS fault
    tolerance)."""

    NONE = "nowhere"
    DISK = "on a disk"
    REDIS = "in Redis"


class Node:
    """A machine: a network of its own, plugged into the hub, and what runs there."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        own = os.stat("/proc/self/ns/net").st_ino
        while (network := os.stat(f"/proc/{self._holder.pid}/ns/net").st_ino) == own:
            time.sleep(0.01)
        self._network = network
        end = f"{name}-end"
        _run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", end)
        _run("ip", "link", "set", end, "netns", str(self._holder.pid))
        _run("ip", "link", "set", name, "master", "hub", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{address}/24", "dev", end)
        self.run("ip", "link", "set", end, "up")

    def run(self, *command: str, **env: str) -> None:
        _run("nsenter", "-t", str(self._holder.pid), "-n", *command, **env)

    def processes(self, having: str = "") -> Iterator[psutil.Process]:
        """Those with this in their command line."""
        for process in psutil.process_iter(["cmdline"]):
            there = process.pid != self._holder.pid and _network_of(process.pid) == self._network
            if there and having in " ".join(process.info["cmdline"] or []):
                yield process

    def switch_off(self) -> None:
        """All that runs there is killed at once. Its address stays, and refuses connections."""
        ended = [*self.processes()]
        for process in ended:
            process.kill()
        psutil.wait_procs(ended, timeout=30)

    def unplug(self) -> None:
        """Nothing reaches it, and nothing comes back, not even a refusal."""
        _run("ip", "link", "set", self.name, "down")

    def plug_in(self) -> None:
        _run("ip", "link", "set", self.name, "up")

    def take_away(self) -> None:
        self.switch_off()
        self._holder.kill()
        self._holder.wait(10)


class Nodes:
    """`ensure` that it runs, and `close` it. Each node has one CPU."""

    def __init__(self) -> None:
        # A short path: Ray has sockets in it, whose names may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        self._client = httpx.Client(timeout=60, trust_env=False)
        self.is_led = False
        self._memory, self._token = Memory.NONE, ""
        self._redis: subprocess.Popen[bytes] | None = None
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "name", "hub", "type", "bridge")
        _run("ip", "addr", "add", f"{HUB}/24", "dev", "hub")
        _run("ip", "link", "set", "hub", "up")
        self.head, self.worker = Node("head", HEAD), Node("worker", WORKER)

    def ensure(self, *, memory: Memory = Memory.NONE, token: str = "") -> None:
        """`token`: Ray itself asks for it."""
        if self.is_led and (self._memory, self._token) == (memory, token):
            return
        self.stop()
        self._memory, self._token = memory, token
        if memory is Memory.REDIS:
            self._redis = subprocess.Popen([*REDIS, "--bind", HUB, "--port", REDIS_PORT])
        self._client.headers = httpx.Headers({"Authorization": f"Bearer {token}"} if token else {})
        self.start_head()
        self.start_worker()

    def stop(self) -> None:
        self.worker.switch_off()
        self.head.switch_off()
        self.is_led = False
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait(10)
            self._redis = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        self.stop()
        self.worker.take_away()
        self.head.take_away()
        self._client.close()

    def start_head(self) -> None:
        env = self._authentication
        if self._memory is Memory.DISK:
            env["RAY_gcs_storage"] = "rocksdb"
            env["RAY_gcs_storage_path"] = str(self._folder / "gcs")
        elif self._memory is Memory.REDIS:
            env["RAY_REDIS_ADDRESS"] = f"{HUB}:{REDIS_PORT}"
        self._folder.mkdir(exist_ok=True)
        self.head.run(
            _RAY, "start", "--head", "--num-cpus", "1", *_STORE, "--dashboard-host", HEAD,
            "--node-ip-address", HEAD, "--temp-dir", str(self._folder), **env,
        )  # fmt: skip
        assert becomes(self._answers), "Ray's dashboard does not answer"
        self.is_led = True

    def start_worker(self) -> None:
        self.worker.run(_RAY, "start", "--address", f"{HEAD}:6379", "--num-cpus", "1", *_STORE,
                        "--node-ip-address", WORKER, "--resources", FAR,
                        **self._authentication)  # fmt: skip

    @property
    def _authentication(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token} if self._token else {}

    def lose_head(self) -> None:
        self.is_led = False
        self.head.switch_off()
        # It would take the other node's processes for its own, which it sees here.
        (self._folder / "ray_current_cluster").unlink(missing_ok=True)

    def freeze_dashboard(self) -> None:
        """It takes connections, and answers none."""
        for process in self.head.processes("dashboard"):
            process.send_signal(signal.SIGSTOP)

    def thaw_dashboard(self) -> None:
        for process in self.head.processes("dashboard"):
            process.send_signal(signal.SIGCONT)

    # -- what Serve says -------------------------------------------------------------------------

    def _answers(self) -> bool:
        try:
            return self._client.get(APPLICATIONS).status_code == 200
        except httpx.HTTPError:
            return False

    def applications(self) -> dict[str, Any]:
        answer = self._client.get(APPLICATIONS)
        found: dict[str, Any] = answer.json()["applications"]
        return found

    def replicas(self, name_has: str) -> list[int]:
        """The pids of the replicas that run of the one application whose name has this in it."""
        shown = [a for name, a in self.applications().items() if name_has in name]
        deployments = [d for a in shown for d in a["deployments"].values()]
        return [r["pid"] for d in deployments for r in d["replicas"] if r["state"] == "RUNNING"]

    def put(self, *applications: dict[str, Any]) -> None:
        body = {"applications": [*applications]}
        self._client.put(APPLICATIONS, json=body).raise_for_status()


def engines() -> list[int]:
    """The pids of all engines on the cluster."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any("trio-gateway-llama-server" in word for word in words):
            found.append(process.pid)
    return found


def _network_of(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def _run(*command: str, **env: str) -> None:
    # A file, no pipe: what it leaves running would hold that open.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            command, env={**_ENVIRONMENT, **env}, timeout=2 * START_S, stdout=said, stderr=said
        )
        said.seek(0)
        assert done.returncode == 0, f"{' '.join(command)}:\n{said.read()}"
