"""A Ray cluster of two nodes on one machine, each in a network namespace of its own.

Whoever starts it is in a network, a process and a user namespace already (`unshare -rn --pid`), as
`nox -s cluster` does: there it may make networks, no port of it is anybody else's, and all of it
ends with the tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

WANTED = "TRIO_GATEWAY_TEST_CLUSTER"
HEAD, WORKER = "10.77.0.1", "10.77.0.2"
ADDRESS = f"http://{HEAD}:8265"
APPLICATIONS = f"{ADDRESS}/api/serve/applications/"
START_S = 120.0
_RAY = str(Path(sys.executable).with_name("ray"))
_STORE = ("--object-store-memory", "80000000")
_ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}


class Nodes:
    """`start` it once, and `stop` it. Each node has one CPU."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = {p.pid for p in psutil.Process().children(recursive=True)}
        self._client = httpx.Client(timeout=60, trust_env=False)
        self.is_headless = False
        self._holder: subprocess.Popen[bytes] | None = None  # of the second network

    def start(self) -> None:
        _run("ip", "link", "set", "lo", "up")
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{self._holder.pid}/ns/net").st_ino == own:
            time.sleep(0.01)
        _run("ip", "link", "add", "head", "type", "veth", "peer", "name", "worker")
        _run("ip", "link", "set", "worker", "netns", str(self._holder.pid))
        _run("ip", "addr", "add", f"{HEAD}/24", "dev", "head")
        _run("ip", "link", "set", "head", "up")
        self._there("ip", "link", "set", "lo", "up")
        self._there("ip", "addr", "add", f"{WORKER}/24", "dev", "worker")
        self._there("ip", "link", "set", "worker", "up")
        _run(_RAY, "start", "--head", "--num-cpus", "1", *_STORE, "--dashboard-host", HEAD,
             "--node-ip-address", HEAD, "--temp-dir", str(self._folder))  # fmt: skip
        self.start_worker()

    def stop(self) -> None:
        """All that has been started since it was made: whose parent is gone is a child of ours."""
        started = [
            p for p in psutil.Process().children(recursive=True) if p.pid not in self._before
        ]
        for process in started:
            process.kill()
        if self._holder is not None:
            self._holder.wait(10)
        psutil.wait_procs(started, timeout=10)
        self._client.close()

    def start_worker(self) -> None:
        self._there(_RAY, "start", "--address", f"{HEAD}:6379", "--num-cpus", "1", *_STORE,
                    "--node-ip-address", WORKER)  # fmt: skip

    def kill_worker(self) -> None:
        """All of the second node at once, as if its machine were switched off."""
        assert self._holder is not None
        network = os.stat(f"/proc/{self._holder.pid}/ns/net").st_ino
        for process in psutil.process_iter():
            if process.pid != self._holder.pid and _network_of(process.pid) == network:
                os.kill(process.pid, signal.SIGKILL)

    def kill_head(self) -> None:
        """What the cluster is led by, and its dashboard."""
        self.is_headless = True
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if "gcs_server" in words or "dashboard" in words:
                process.kill()

    def _there(self, *command: str) -> None:
        assert self._holder is not None
        _run("nsenter", "-t", str(self._holder.pid), "-n", *command)

    # -- what Serve says -------------------------------------------------------------------------

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


def _run(*command: str) -> None:
    subprocess.run(
        command, check=True, env=_ENVIRONMENT, timeout=START_S, stdout=subprocess.DEVNULL
    )
