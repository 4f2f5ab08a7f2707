"""A real gateway whose file changes: streams, engines, keys, and files that cannot be read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import trio

from tests.support.harness import (
    CLIENT_KEY,
    HYPERCORN,
    SERVE,
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    free_port,
    running_gateway,
)

STREAMS, RELOADS, CHUNKS = 50, 20, 80
PLACES = ("--parallel", str(STREAMS), "--interval-s", "0.1")


def edits() -> Iterator[str]:
    """None of them is about how the engine of `steady` is started."""
    steady = fake_model("steady", *PLACES)
    yield configuration(steady)
    yield configuration(steady, fake_model("more"))
    yield configuration(steady, fake_model("more", "--load-s", "1"))
    yield configuration(fake_model("steady", *PLACES, engine_idle_timeout="60"))
    yield configuration(steady, queue_limit="9") + "pools = { primary = { engines = 2 } }\n"
    yield configuration(fake_model("steady", *PLACES, aliases='{ "other" }', pinned="true"))
    yield configuration(steady, api_keys=f'{{ {{ key = "{CLIENT_KEY}", admin = true }} }}')
    yield configuration(steady, queue_timeout="7", fairness_window="1")


class Reloading:
    def __init__(self, gateway: GatewayProcess, folder: Path) -> None:
        self.gateway, self._file = gateway, folder / "gateway.lua"

    def write(self, config: str) -> None:
        port = httpx.URL(self.gateway.base_url).port
        self._file.write_text(config.replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"'))

    def reload(self) -> httpx.Response:
        with self.gateway.client() as client:
            headers = {"Authorization": f"Bearer {CLIENT_KEY}"}
            return client.post("/gateway/reload", headers=headers)


def test_fifty_streams_go_on_across_twenty_reloads(tmp_path: Path) -> None:
    first, *others = edits()
    broken: list[str] = []

    async def stream(client: httpx.AsyncClient) -> None:
        body = chat_body("steady", stream=True, max_tokens=CHUNKS)
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            answer = b"".join([piece async for piece in response.aiter_bytes()])
        if response.status_code != 200 or answer.count(b" tok") != CHUNKS:
            broken.append(f"{response.status_code} {answer[-300:]!r}")
        elif not answer.rstrip().endswith(b"data: [DONE]"):
            broken.append(repr(answer[-300:]))

    async def all_of_it() -> None:
        async with gateway.async_client() as client, trio.open_nursery() as nursery:
            for _ in range(STREAMS):
                nursery.start_soon(stream, client)
            await trio.to_thread.run_sync(gateway.wait_for_line, "steady:4096: ready in ")
            for number in range(RELOADS):
                given.write([*others, first][number % (len(others) + 1)])
                answer = await trio.to_thread.run_sync(given.reload)
                assert answer.status_code == 200, answer.text
                assert answer.json()["changes"], number

    with running_gateway(tmp_path, first) as gateway:
        given = Reloading(gateway, tmp_path)
        trio.run(all_of_it)
        assert broken == []
        assert len(gateway.engines()) == 1
        assert "steady:4096: draining" not in gateway.log


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server = {", "gateway.lua:"),
        ('server = {}\nmodels = { { name = "x" } }', "variants: missing"),
        ("while true do end", "gateway.lua"),
        (None, "no such file"),
    ],
)
def test_a_file_with_mistakes_changes_nothing(text: str | None, said: str, tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(fake_model("fake"))) as gateway:
        given = Reloading(gateway, tmp_path)
        if text is None:
            (tmp_path / "gateway.lua").unlink()
        else:
            (tmp_path / "gateway.lua").write_text(text)
        answer = given.reload()
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_configuration")
        assert said in error["message"]
        gateway.wait_for_line(re.escape(said))
        assert gateway.chat("fake").status_code == 200


def test_the_command_says_what_has_changed(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "trio_gateway", "reload", "-c", str(tmp_path / "gateway.lua")]
    listen = f'"127.0.0.1:{free_port()}"'
    with running_gateway(tmp_path, configuration(fake_model("fake"), listen=listen)) as gateway:
        more = configuration(fake_model("fake"), fake_model("more"), listen=listen)
        (tmp_path / "gateway.lua").write_text(more)
        run = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stdout) == (0, "+ model more\n")
        assert gateway.chat("more").status_code == 200
        run = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stdout) == (0, "Nothing has changed.\n")
        # The file says by then where the gateway is to be, and not where it is.
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        elsewhere = f'"127.0.0.1:{free_port()}"'
        (tmp_path / "gateway.lua").write_text(more.replace(listen, elsewhere))
        run = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
        assert (run.returncode, run.stdout) == (0, "~ server: listen_v4\n")
        assert httpx.get(f"http://{elsewhere.strip(chr(34))}/health").status_code == 200


def write_with(file: Path, name: str, listen: str) -> None:
    file.write_text(configuration(fake_model("fake"), fake_model(name), listen=listen))


UNDER_HYPERCORN = (*HYPERCORN, "-k", "trio", "-w", "0", "-b", "127.0.0.1:0", "trio_gateway.app:app")


@pytest.mark.parametrize(
    ("command", "ready"),
    [(SERVE, r"Base URL for clients: (\S+)/v1"), (UNDER_HYPERCORN, r"Running on (\S+) \(CTRL")],
)
def test_a_hangup_reloads(command: Sequence[str], ready: str, tmp_path: Path) -> None:
    file, listen = tmp_path / "gateway.lua", f'"127.0.0.1:{free_port()}"'
    first = configuration(fake_model("fake"), listen=listen)
    with running_gateway(tmp_path, first, command=command, ready=ready) as it:
        write_with(file, "more", listen)
        it.send_signal(signal.SIGHUP)
        it.wait_for_line(r"\+ model more")
        assert it.chat("more").status_code == 200
        other, is_ours = f"127.0.0.1:{free_port()}", command is SERVE
        write_with(file, "more", f'"{other}"')
        it.send_signal(signal.SIGHUP)
        it.wait_for_line("~ server: listen_v4" if is_ours else "! server: listen_v4 .*its own")
        write_with(file, "more", listen)
        it.send_signal(signal.SIGHUP)
        it.wait_for_line(f"no longer listening on {other}" if is_ours else "nothing has changed")
        file.write_text("server = {")
        it.send_signal(signal.SIGHUP)
        it.wait_for_line("the configuration stays as it was")
        assert it.chat("more").status_code == 200


def test_the_file_is_watched(tmp_path: Path) -> None:
    file, listen = tmp_path / "gateway.lua", f'"127.0.0.1:{free_port()}"'
    first = configuration(fake_model("fake"), listen=listen)
    command = (sys.executable, "-m", "trio_gateway", "serve", "--watch", "-c", str(file))
    with running_gateway(tmp_path, first, command=command) as gateway:
        write_with(file, "more", listen)
        gateway.wait_for_line(r"\+ model more")
        (tmp_path / "part.lua").write_text("return 3")
        part = 'local limit = include("part.lua")\n'
        file.write_text(
            part + configuration(fake_model("fake"), listen=listen, queue_limit="limit")
        )
        gateway.wait_for_line(r"- model more")
        (tmp_path / "part.lua").write_text("return 4")
        after = gateway.lines_so_far()
        gateway.wait_for_line(r"~ server: queue_limit", after=max(after - 2, 0))
        other = 'local limit = include("other.lua")\n'  # which is not there yet
        file.write_text(
            other + configuration(fake_model("fake"), listen=listen, queue_limit="limit")
        )
        gateway.wait_for_line(r"other.lua: No such file")
        (tmp_path / "other.lua").write_text("retrun 5")
        gateway.wait_for_line(r"other.lua:1: syntax error")
        after = gateway.lines_so_far()
        (tmp_path / "other.lua").write_text("return 5")
        gateway.wait_for_line(r"~ server: queue_limit", after=after)


def test_a_hangup_in_a_load_changes_nothing_of_it_and_in_a_shutdown_nothing_at_all(
    tmp_path: Path,
) -> None:
    file, listen = tmp_path / "gateway.lua", f'"127.0.0.1:{free_port()}"'
    slow = fake_model("slow", "--load-s", "2", "--interval-s", "0.01")
    with running_gateway(tmp_path, configuration(slow, listen=listen)) as gateway:
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(gateway.chat, "slow")
            gateway.wait_for_line("slow:4096: starting at")
            file.write_text(configuration(slow, fake_model("more"), listen=listen))
            gateway.send_signal(signal.SIGHUP)
            gateway.wait_for_line(r"\+ model more")
            assert answer.result().status_code == 200
        assert len(gateway.engines()) == 1
        with gateway.streaming("slow"):
            gateway.send_signal(signal.SIGTERM)
            gateway.wait_for_line("SIGTERM: stopping")
            file.write_text(configuration(slow, listen=listen))
            gateway.send_signal(signal.SIGHUP)
            gateway.wait_for_line("the gateway is stopping: the configuration stays as it was")
        assert gateway.wait() == 0
        assert "- model more" not in gateway.log
