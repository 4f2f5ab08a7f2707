"""The history's file under real gateways: killed in the middle of writes, and on bad disks."""

from __future__ import annotations

import resource
import sqlite3
import threading
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.support.harness import (
    GatewayProcess,
    configuration,
    fake_model,
    lua_string,
    running_gateway,
)
from tests.support.patience import eventually, patient
from trio_gateway.server.history.history import RETRY_S


def with_history(file: Path, **more: str) -> str:
    fields = "".join(f", {name} = {value}" for name, value in more.items())
    history = f"{{ file = {lua_string(str(file))}{fields} }}"
    return configuration(fake_model("m"), history=history)


def requests_of(gateway: GatewayProcess, query: str = "") -> list[dict[str, Any]]:
    with gateway.client() as client:
        page = client.get(f"/gateway/requests?limit=1000{query}").json()
    assert "partial" not in page
    rows: list[dict[str, Any]] = page["requests"]
    return rows


def in_file(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in opened.execute("SELECT id FROM requests")}


def has(path: Path, count: int) -> bool:
    return len(in_file(path)) == count


class Asking:
    """Asks without a pause, in threads, and notes when each answer was there."""

    def __init__(self, gateway: GatewayProcess, threads: int = 4) -> None:
        self.answered: dict[str, float] = {}
        self._url = gateway.base_url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60) as client:
            while not self._over.is_set():
                try:
                    answer = client.post("/v1/chat/completions", json=body)
                except httpx.TransportError:
                    return
                self.answered[answer.headers["X-Gateway-Request-Id"]] = time.monotonic()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_a_gateway_that_is_killed_in_the_middle_of_writes_loses_the_last_second_at_most(
    tmp_path: Path,
) -> None:
    file = tmp_path / "history.sqlite"
    known: set[str] = set()
    for round_ in range(3):
        with running_gateway(tmp_path, with_history(file)) as gateway:
            gateway.chat("m")
            asking = Asking(gateway)
            time.sleep(1.5 + round_ * 0.3)
            gateway.descendants()
            gateway.process.kill()
            killed_at = time.monotonic()
            gateway.wait()
            asking.stop()
        found = in_file(file)
        lost = {id_ for id_, at in asking.answered.items() if id_ not in found}
        late = [killed_at - asking.answered[id_] for id_ in lost]
        assert max(late, default=0.0) < patient(1.0)
        assert known <= found
        known |= found
        assert len(asking.answered) > 20
    with running_gateway(tmp_path, with_history(file)) as gateway:
        shown = {row["id"] for row in requests_of(gateway)}
        assert shown <= known
        assert len(shown) == min(len(known), 1000)
        answered = gateway.chat("m").headers["X-Gateway-Request-Id"]
        assert requests_of(gateway)[0]["id"] == answered
        assert gateway.stop() == 0
    assert answered in in_file(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_usage_and_the_end_of_a_request_outlive_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    with running_gateway(tmp_path, with_history(file, requests="1")) as gateway:
        asked = [gateway.chat("m").headers["X-Gateway-Request-Id"] for _ in range(3)]
        assert gateway.stop() == 0
    with running_gateway(tmp_path, with_history(file, requests="1")) as gateway:
        assert [row["id"] for row in requests_of(gateway)] == asked[::-1]
        first = requests_of(gateway, f"&before={asked[1]}")
        assert [row["id"] for row in first] == asked[:1]
        with gateway.client() as client:
            (usage,) = client.get("/gateway/usage?by=day").json()["usage"]
            assert (usage["requests"], usage["ok"]) == (3, 3)
            over = client.post(f"/gateway/requests/{asked[0]}/cancel")
            assert over.status_code == 409


def test_a_bad_disk_harms_no_request_and_costs_one_line(tmp_path: Path) -> None:
    """A folder that is read-only, a file that another program has locked, a disk that is full."""
    names = ("unwritable", "locked", "full")
    files = {name: tmp_path / name / "history.sqlite" for name in names}
    files["unwritable"] = Path("/proc/history/history.sqlite")
    with ExitStack() as stack:
        gateways = {}
        for name, file in files.items():
            folder = tmp_path / f"{name} gateway"
            folder.mkdir()
            gateways[name] = stack.enter_context(running_gateway(folder, with_history(file)))
        for name in ("locked", "full"):
            gateways[name].chat("m")
            assert eventually(partial(has, files[name], 1), patient(10.0))
        other = sqlite3.connect(files["locked"], isolation_level=None, timeout=10.0)
        stack.callback(other.close)
        other.execute("BEGIN IMMEDIATE")
        limit = files["full"].stat().st_size + 4096
        resource.prlimit(gateways["full"].process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        asked_at = time.monotonic()
        for gateway in gateways.values():
            assert [gateway.chat("m").status_code for _ in range(30)] == [200] * 30
        assert time.monotonic() - asked_at < patient(20.0)
        time.sleep(RETRY_S + 1.5)
        for name, gateway in gateways.items():
            lines = [line for line in gateway.log.splitlines() if "the history" in line]
            assert len(lines) == 1, (name, lines)
            assert "cannot be written" in lines[0]
            with gateway.client() as client:
                assert len(client.get("/gateway/requests").json()["requests"]) >= 30
        other.execute("ROLLBACK")
        gateways["locked"].wait_for_line("the history is written to .* again")
        assert [gateway.stop() for gateway in gateways.values()] == [0, 0, 0]
    assert len(in_file(files["locked"])) == 31
