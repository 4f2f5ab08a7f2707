"""`trio-gateway serve` as its users run it: a process, a configuration file, a socket."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import (
    SERVE,
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    fake_variant,
    free_port,
    lua_array,
    lua_string,
    model,
    running_gateway,
)
from tests.support.patience import eventually, patient


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("serve")
    config = configuration(
        fake_model("a"),
        fake_model("b"),
        fake_model("slow", "--interval-s", "0.05"),
        fake_model("helper", engine="presets.engines.llamacpp_secondary"),
        model("grows", fake_variant(context=512), fake_variant(context=4096)),
    )
    with running_gateway(folder, config) as running:
        yield running


def test_a_swap_between_two_models_leaves_one_engine(gateway: GatewayProcess) -> None:
    for name in ("a", "b", "a"):
        response = gateway.chat(name)
        assert response.status_code == 200
        assert response.headers["X-Gateway-Model"] == name
        assert len(gateway.engines()) == 1


def test_verbose_logs_each_request_and_what_engines_print(gateway: GatewayProcess) -> None:
    request = gateway.chat("a").headers["X-Gateway-Request-Id"]
    gateway.wait_for_line(rf"request {request}: POST /v1/chat/completions: 200 after [\d.]+ s")
    gateway.wait_for_line(r"a:4096 \| fake engine: listening")


def test_a_secondary_engine_runs_beside_it(gateway: GatewayProcess) -> None:
    assert gateway.chat("a").status_code == 200
    assert gateway.chat("helper").status_code == 200
    assert len(gateway.engines()) == 2


def test_a_model_grows_into_the_variant_that_holds_the_need(gateway: GatewayProcess) -> None:
    assert gateway.chat("grows").headers["X-Gateway-Variant"] == "512"
    grown = gateway.chat("grows", "word " * 1000)
    assert grown.headers["X-Gateway-Variant"] == "4096"
    # The larger one that runs serves the smaller need too.
    assert gateway.chat("grows").headers["X-Gateway-Variant"] == "4096"


def test_a_client_that_goes_away_stops_the_engine_s_work(gateway: GatewayProcess) -> None:
    body = chat_body("slow", stream=True, max_tokens=10_000 // 3)
    with gateway.client() as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            next(response.iter_bytes())
            port = re.findall(r"slow:4096: ready .*http://127.0.0.1:(\d+)", gateway.log)[-1]
            slots = f"http://127.0.0.1:{port}/slots"
            assert client.get(slots).json()[0]["is_processing"]
        assert eventually(lambda: not client.get(slots).json()[0]["is_processing"], within_s=5)


def test_a_body_over_the_limit_gets_its_413_while_it_is_still_being_sent(
    tmp_path: Path,
) -> None:
    config = configuration(fake_model("a"), max_body_size='"1MiB"')
    with running_gateway(tmp_path, config) as gateway, gateway.client() as client:
        response = client.post("/v1/chat/completions", content=b"x" * 2_000_000)
        assert response.status_code == 413
        assert client.get("/health").status_code == 200


def test_a_tokenizer_goes_with_its_gateway_and_does_not_hold_up_a_shutdown(
    tmp_path: Path,
) -> None:
    script = tmp_path / "tokenizer"
    script.write_text("#!/bin/sh\ntrap '' TERM\necho counting >&2\nsleep 600\n")
    script.chmod(0o755)
    counting = f"{{ binary = {lua_string(str(script))} }}"
    two = model("two", fake_variant(context=512), fake_variant(), tokenization=counting)
    config = configuration(two, fake_model("other"), shutdown_grace="0.5", engine_stop_timeout="1")
    for number in (signal.SIGKILL, signal.SIGTERM):
        with running_gateway(tmp_path, config) as gateway:
            body = chat_body("two", "word " * 300)
            ask = threading.Thread(target=lambda: try_to_ask(gateway, body))  # noqa: B023
            ask.start()
            assert eventually(
                lambda: any("sleep" in p.name() for p in gateway.descendants()),
                within_s=5,
            )
            begun = time.monotonic()
            gateway.send_signal(number)
            gateway.wait()
            assert time.monotonic() - begun < patient(0.5 + 1 + 1)
            gateway.assert_nothing_left(within_s=1)
            ask.join()


def test_no_child_inherits_a_key_that_is_not_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither engines, nor commands, nor the gateway's own helpers."""
    for name in ("GATEWAY_KEY", "CLUSTER_KEY", "TRIO_GATEWAY_KEY", "PLAIN"):
        monkeypatch.setenv(name, f"value-of-{name}")
    tokenizer, seen = tmp_path / "tokenizer", tmp_path / "seen"
    tokenizer.write_text(f"#!/bin/sh\nenv > {seen}-tokenizer\necho '[1, 2]'\n")
    tokenizer.chmod(0o755)
    counting = f"{{ binary = {lua_string(str(tokenizer))} }}"
    stop = lua_array(["sh", "-c", f"env > {seen}-stop"])
    wishing = fake_variant().replace("{", "{ env = { CLUSTER_KEY = true }, ", 1)
    config = configuration(
        model("a", fake_variant(context=512), fake_variant(), tokenization=counting),
        model("b", wishing, engine="presets.engines.llamacpp_secondary", stop_command=stop),
        '{ name = "c", engine = presets.engines.remote, urls = "http://127.0.0.1:1",'
        ' api_key = os.getenv("CLUSTER_KEY"), variants = { { context = 4096 } } }',
        api_keys='{ { key = env("GATEWAY_KEY"), admin = true } }',
    )
    with running_gateway(tmp_path, config) as gateway, gateway.client() as client:
        client.headers["Authorization"] = "Bearer value-of-GATEWAY_KEY"
        for name in "ab":
            body = chat_body(name, "word " * 300)
            assert client.post("/v1/chat/completions", json=body).status_code == 200
        wishful = gateway.engine_of("b").pid
        children = {p.pid: p.environ() for p in gateway.descendants()}
        assert client.post("/gateway/models/b/unload").status_code == 200
    environments = [env for pid, env in children.items() if pid != wishful]
    for file in (f"{seen}-tokenizer", f"{seen}-stop"):
        lines = Path(file).read_text().splitlines()
        environments.append(dict(line.split("=", 1) for line in lines if "=" in line))
    assert len(environments) >= 4  # the reaper, an engine, a tokenizer, a stop_command
    own = {"GATEWAY_KEY", "TRIO_GATEWAY_KEY", "TRIO_GATEWAY_CONFIG"}
    assert [env.keys() & own for env in (*environments, children[wishful])] == [set()] * (
        len(environments) + 1
    )
    assert [name for name, env in enumerate(environments[:-1]) if "CLUSTER_KEY" in env] == []
    assert children[wishful]["CLUSTER_KEY"] == "value-of-CLUSTER_KEY"
    assert environments[-1]["PLAIN"] == "value-of-PLAIN"


def try_to_ask(gateway: GatewayProcess, body: dict[str, Any]) -> None:
    with contextlib.suppress(httpx.HTTPError), gateway.client() as client:
        client.post("/v1/chat/completions", json=body)


def test_hosts_and_addresses_in_every_spelling_are_understood(tmp_path: Path) -> None:
    port = free_port()
    config = configuration(
        fake_model("v6", "--host", "::1"),
        fake_model("any", "--host", "0.0.0.0"),
        fake_model("a", "--port", str(port), connect=f'"http://localhost:{port}"'),
        fake_model(
            "b", "--port", str(port), connect=f'"http://127.0.0.1:{port}"', pool='"secondary"'
        ),
    )
    with running_gateway(tmp_path, config) as gateway:
        for name in ("v6", "any", "a", "b", "a"):
            response = gateway.chat(name)
            assert response.status_code == 200, response.text


def test_a_reaper_that_is_killed_is_started_again_and_knows_the_engines(tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(fake_model("a"))) as gateway:
        gateway.chat("a")
        gateway.reaper().kill()
        gateway.wait_for_line("the reaper .* has ended; started again as pid")
        gateway.process.kill()
        gateway.wait()
        gateway.assert_nothing_left(within_s=1.0)


def test_a_taken_listen_address_ends_the_start_with_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        file = tmp_path / "gateway.lua"
        both = f'{{ "127.0.0.1:0", "127.0.0.1:{port}" }}'
        file.write_text(configuration(fake_model("a"), listen=both))
        done = subprocess.run([*SERVE, str(file)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_listens_on_every_address(tmp_path: Path) -> None:
    config = configuration(
        fake_model("a"), listen='{ "127.0.0.1:0", "127.0.0.2:0" }', listen_v6='"[::1]:0"'
    )
    with running_gateway(tmp_path, config) as gateway, gateway.client() as client:
        urls = re.findall(r"listening on (\S+)", gateway.log)
        assert [u.rpartition(":")[0] for u in urls] == [
            "http://127.0.0.1", "http://127.0.0.2", "http://[::1]",
        ]  # fmt: skip
        for url in urls:
            assert client.get(f"{url}/health").json() == {"status": "ok"}


def test_every_request_leaves_a_dump_that_can_be_read(tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    config = configuration(fake_model("a"), dumps_dir=lua_string(str(dumps)))
    with running_gateway(tmp_path, config) as gateway:
        gateway.chat("a", "a question")
        gateway.chat("a", "a streamed question", stream=True)
        gateway.chat("nope")
        gateway.stop()
    texts = [file.read_text() for file in sorted(dumps.iterdir())]
    assert len(texts) == 3
    assert "a question" in texts[0]
    assert "tok tok tok" in texts[0]
    assert "=== answer, assembled ===\n tok tok tok tok tok tok tok tok\n" in texts[1]
    assert "model_not_found" in texts[2]
    assert {file.stat().st_mode & 0o777 for file in dumps.iterdir()} == {0o600}


def test_a_wrong_configuration_exits_with_2_and_every_mistake(tmp_path: Path) -> None:
    file = tmp_path / "gateway.lua"
    file.write_text("server = { listen_v4 = 7 }\nmodels = {}\n")
    done = subprocess.run([*SERVE, str(file)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "server.listen_v4" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("source", ["variable", "folder"])
def test_serve_says_which_configuration_it_uses(tmp_path: Path, source: str) -> None:
    text = configuration(fake_model("a"))
    name = "gateway.lua" if source == "folder" else "other.lua"
    (tmp_path / name).write_text(text)
    variables = {k: v for k, v in os.environ.items() if k != "TRIO_GATEWAY_CONFIG"}
    if source == "variable":
        variables["TRIO_GATEWAY_CONFIG"] = str(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "trio_gateway", "check"],
        cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0
    assert {"variable": "$TRIO_GATEWAY_CONFIG", "folder": "found in this folder"}[source] in (
        done.stdout.replace("\n", " ")
    )
