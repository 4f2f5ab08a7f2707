"""Every way in which an engine can fail, with real processes.

For each: nothing hangs (the clients' timeouts), no request ends without a word, the next request
works, and (the harness) nothing is left.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.harness import (
    SERVE,
    GatewayProcess,
    broken_off,
    chat_body,
    configuration,
    fake_model,
    free_port,
    lua_string,
    model,
    running_gateway,
    wait_until_gone,
)
from tests.support.patience import eventually

CHECK_S = 0.3
STOP_S = 0.5
FAIRNESS_S = "0.2"  # a swap waits no longer before it drains a busy engine
HUNG = "the engine did not answer 3 health checks in a row (0.9 s)"
LISTENING = "fake engine: listening"  # the last line of most engines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[GatewayProcess]:
    """One gateway for all faults; each test has its models, `a` is the one that is well."""
    port = free_port()
    config = configuration(
        fake_model("a"),
        fake_model("idle"),
        fake_model("streams", "--interval-s", "0.02"),
        fake_model("crashes", "--interval-s", "0.02", "--crash-after", "5"),
        fake_model("drains", "--interval-s", "0.02"),
        fake_model("freezes", "--interval-s", "0.02"),
        fake_model("freezes-idle"),
        fake_model("broken", "--exit-at-start", "7"),
        fake_model("too-large", "--exit-during-load", "0.2"),
        fake_model("too-large-too", "--exit-during-load", "0.2"),
        fake_model("hangs", "--never-ready", engine_startup_timeout="0.5"),
        fake_model("dies-once", "--die-once", str(folder / "died")),
        fake_model("deaf", "--refuse-requests", str(folder / "deaf")),
        fake_model("garbage", "--garbage"),
        fake_model("stubborn", "--ignore-sigterm"),
        fake_model("family", "--grandchild"),
        fake_model(
            "heirs",
            "--hold-port-grandchild",
            *("--port", str(port)),
            connect=f'"http://127.0.0.1:{port}"',
        ),
        fake_model("helped", "--escaped-helper", "--die-once", str(folder / "helped-died")),
        fake_model("flood", "--flood"),
        fake_model("loops-loading", "--exit-at-start", "7"),
        fake_model("loops-serving", "--crash-after", "0"),
        model("gone", "{ binary = '/no/such/binary', args = {}, context = 4096 }"),
        model("no-exec", f"{{ binary = {lua_string(__file__)}, args = {{}}, context = 4096 }}"),
        fairness_window=FAIRNESS_S,
        health_check_timeout=str(CHECK_S),
        engine_stop_timeout=str(STOP_S),
    )
    with running_gateway(folder, config) as running:
        yield running


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    """Clients beside the one of the test; their requests have ended when the test has."""
    with ThreadPoolExecutor() as executor:
        yield executor


def grandchildren(gateway: GatewayProcess) -> list[psutil.Process]:
    return [p for p in gateway.descendants() if "time.sleep(600)" in " ".join(p.cmdline())]


# -- before it is ready ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", ["exited with code 7 while starting", "fake engine: the model is broken"]),
        ("too-large", ["exited with code 9 while starting", LISTENING, "the model is too large"]),
        ("gone", ["/no/such/binary does not exist", "check `binary`"]),
        ("no-exec", ["is not executable", "chmod +x"]),
    ],
)
def test_an_engine_that_does_not_start_is_a_502_that_says_why_and_so_is_the_next_after_a_pause(
    gateway: GatewayProcess, name: str, words: list[str]
) -> None:
    status, code, message = gateway.error_of(name)
    assert (status, code) == (502, "engine_failed")
    assert [w for w in words if w not in message] == []
    assert after_a_pause(gateway, name, 1)[0] == 502
    assert gateway.chat("a").status_code == 200


def test_an_engine_that_never_gets_ready_is_a_504(gateway: GatewayProcess) -> None:
    assert gateway.error_of("hangs")[:2] == (504, "engine_startup_timeout")
    assert gateway.chat("a").status_code == 200


def test_an_engine_that_exits_while_a_swap_to_it_is_under_way_costs_only_its_own_requests(
    gateway: GatewayProcess, others: ThreadPoolExecutor
) -> None:
    assert gateway.chat("a").status_code == 200
    lost = others.submit(gateway.error_of, "too-large-too")
    gateway.wait_for_line("too-large-too:4096: starting at")
    after = others.submit(gateway.chat, "a")
    assert lost.result()[:2] == (502, "engine_failed")
    assert after.result().status_code == 200


# -- while it runs ---------------------------------------------------------------------------


def test_an_engine_that_exits_while_it_is_idle_is_started_again(gateway: GatewayProcess) -> None:
    assert gateway.chat("idle").status_code == 200
    gateway.engine_of("idle").kill()
    gateway.wait_for_line(r"idle:4096 \(pid \d+\): the engine was killed by signal 9")
    assert gateway.chat("idle").status_code == 200


def test_an_engine_killed_in_mid_stream_ends_the_stream_with_an_error_event(
    gateway: GatewayProcess,
) -> None:
    with gateway.streaming("streams") as rest:
        gateway.engine_of("streams").kill()
        assert "was killed by signal 9" in broken_off(rest)
    assert gateway.chat("streams").status_code == 200


def test_an_engine_that_crashes_in_mid_stream_is_quoted(gateway: GatewayProcess) -> None:
    with gateway.streaming("crashes") as rest:
        message = broken_off(rest)
    assert "exited with code 3" in message
    assert "a bug in a kernel" in message
    assert gateway.chat("crashes").status_code == 200


def test_an_engine_that_dies_before_its_answer_costs_one_retry(gateway: GatewayProcess) -> None:
    assert gateway.chat("dies-once").status_code == 200
    gateway.wait_for_line("dies-once:4096 .* was killed by signal 9")
    gateway.wait_for_line("trying once more")


def test_one_that_dies_while_a_helper_holds_its_pipe_costs_no_more(
    gateway: GatewayProcess,
) -> None:
    try:
        assert gateway.chat("helped").status_code == 200
    finally:
        for process in gateway.descendants():
            if "time.sleep(3)" in " ".join(process.cmdline()):
                process.kill()  # it left the engine's group: nobody's but its own


def test_an_engine_that_dies_while_it_drains_for_a_swap_does_not_hold_it_up(
    gateway: GatewayProcess, others: ThreadPoolExecutor
) -> None:
    with gateway.streaming("drains") as rest:
        swapped = others.submit(gateway.chat, "a")
        gateway.wait_for_line("drains:4096: draining")
        gateway.engine_of("drains").kill()
        assert "was killed by signal 9" in broken_off(rest)
        assert swapped.result().status_code == 200


# -- alive, and of no use --------------------------------------------------------------------


def test_an_engine_that_hangs_in_mid_stream_is_killed_and_its_stream_ends_with_an_error(
    gateway: GatewayProcess,
) -> None:
    with gateway.streaming("freezes") as rest:
        hung = gateway.engine_of("freezes")
        hung.suspend()
        message = broken_off(rest)
    assert HUNG in message
    assert LISTENING in message
    assert not wait_until_gone([hung], within_s=1)
    assert gateway.chat("freezes").status_code == 200


def test_an_engine_that_hangs_while_it_is_idle_is_replaced(gateway: GatewayProcess) -> None:
    assert gateway.chat("freezes-idle").status_code == 200
    hung = gateway.engine_of("freezes-idle")
    hung.suspend()
    gateway.wait_for_line(r"freezes-idle:4096 \(pid \d+\): the engine did not answer 3 health")
    assert not wait_until_gone([hung], within_s=1)
    assert gateway.chat("freezes-idle").status_code == 200


def test_an_engine_that_answers_health_but_refuses_requests_is_replaced(
    gateway: GatewayProcess, folder: Path
) -> None:
    assert gateway.chat("deaf").status_code == 200
    deaf = gateway.engine_of("deaf")
    (folder / "deaf").touch()
    for _ in range(2):  # one request alone may be to blame itself
        status, code, message = gateway.error_of("deaf")
        assert (status, code) == (502, "engine_failed")
        assert "the engine closed the connection" in message
    gateway.wait_for_line(r"deaf:4096 \(pid \d+\): the engine refuses requests \(the engine closed")
    (folder / "deaf").unlink()
    assert gateway.chat("deaf").status_code == 200
    assert gateway.engine_of("deaf").pid != deaf.pid


def test_an_engine_that_talks_garbage_is_a_502(gateway: GatewayProcess) -> None:
    status, code, message = gateway.error_of("garbage")
    assert (status, code) == (502, "engine_failed")
    assert "not HTTP" in message
    assert LISTENING in message
    assert gateway.chat("a").status_code == 200


def test_an_engine_that_writes_without_a_newline_is_not_blocked(gateway: GatewayProcess) -> None:
    assert gateway.chat("flood").status_code == 200


# -- unwilling to go -------------------------------------------------------------------------


def test_an_engine_that_ignores_sigterm_is_killed(gateway: GatewayProcess) -> None:
    assert gateway.chat("stubborn").status_code == 200
    assert gateway.chat("a").status_code == 200
    killed = gateway.wait_for_line(r"stubborn:4096 \(pid \d+\) killed in (\d+) ms")
    assert int(killed[1]) >= STOP_S * 1000


def test_a_grandchild_goes_with_its_engine(gateway: GatewayProcess) -> None:
    assert gateway.chat("family").status_code == 200
    (grandchild,) = grandchildren(gateway)
    assert gateway.chat("a").status_code == 200
    assert not wait_until_gone([grandchild], within_s=2)


def test_a_grandchild_that_holds_pipe_and_port_does_not_survive_its_engine(
    gateway: GatewayProcess,
) -> None:
    assert gateway.chat("heirs").status_code == 200
    (grandchild,) = grandchildren(gateway)
    gateway.engine_of("heirs").kill()
    # The next engine wants the same port.
    assert gateway.chat("heirs").status_code == 200
    assert not wait_until_gone([grandchild], within_s=1)


# -- crash loops -----------------------------------------------------------------------------


def test_an_engine_whose_every_start_fails_is_left_alone_for_1_2_s(
    gateway: GatewayProcess,
) -> None:
    assert gateway.error_of("loops-loading")[:2] == (502, "engine_failed")
    for pause_s in (1, 2):
        assert after_a_pause(gateway, "loops-loading", pause_s)[:2] == (502, "engine_failed")
    assert gateway.chat("a").status_code == 200


def test_an_engine_that_crashes_at_each_request_is_retried_once_and_then_left_alone_for_1_2_s(
    gateway: GatewayProcess,
) -> None:
    status, code, message = gateway.error_of("loops-serving")
    assert (status, code) == (502, "engine_failed")
    assert "exited with code 3" in message
    assert "a bug in a kernel" in message
    assert gateway.log.count("loops-serving:4096: starting at") == 2  # the second one at once
    assert after_a_pause(gateway, "loops-serving", 1 + 2)[:2] == (502, "engine_failed")
    assert gateway.log.count("loops-serving:4096: starting at") == 4
    assert gateway.chat("a").status_code == 200


def after_a_pause(gateway: GatewayProcess, name: str, pause_s: float) -> tuple[int, str, str]:
    """What a request gets that waits that long, while others are served."""
    begun = time.monotonic()
    with ThreadPoolExecutor() as executor:
        waiting = executor.submit(gateway.error_of, name)
        assert gateway.chat("a").status_code == 200
        assert not waiting.done()
        found = waiting.result()
    assert time.monotonic() - begun > 0.9 * pause_s
    return found


# -- the gateway's own limits ----------------------------------------------------------------


def test_without_descriptors_a_request_is_told_so_and_the_engines_live_on(
    tmp_path: Path,
) -> None:
    second = "presets.engines.llamacpp_secondary"
    config = configuration(
        fake_model("a"),
        # A kept connection would still serve.
        fake_model("helper", "--no-keep-alive", engine=second),
        health_check_timeout=str(CHECK_S),
    )
    with running_gateway(tmp_path, config) as gateway, ExitStack() as stack:
        client = stack.enter_context(gateway.client())

        def ask(name: str) -> httpx.Response:
            return client.post("/v1/chat/completions", json=chat_body(name))

        assert ask("helper").status_code == 200
        helper = gateway.engine_of("helper")
        # Clients alone cannot take them all, so they are taken away.
        process = psutil.Process(gateway.process.pid)
        before = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), before[1]))
        stack.enter_context(socket.create_connection((client.base_url.host, client.base_url.port)))
        gateway.wait_for_line("Too many open files")
        for name in ("a", "helper"):
            response = ask(name)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (502, "engine_failed")
            assert "Too many open files" in error["message"]
        process.rlimit(psutil.RLIMIT_NOFILE, before)
        assert eventually(lambda: ask("a").status_code == 200, within_s=5)
        assert ask("helper").status_code == 200
        assert gateway.engine_of("helper") == helper
        assert helper.is_running()


def test_a_second_gateway_says_who_has_its_port_and_leaves_the_first_alone(tmp_path: Path) -> None:
    port = free_port()
    config = configuration(fake_model("a"), listen=f'"127.0.0.1:{port}"')
    with running_gateway(tmp_path, config) as gateway:
        second = subprocess.run(
            [*SERVE, str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=20
        )
        assert second.returncode == 1
        assert f"127.0.0.1:{port}" in second.stderr
        assert f"pid {gateway.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        assert gateway.chat("a").status_code == 200


def test_an_engine_s_port_that_another_gateway_s_engine_holds_is_a_502_that_names_it(
    tmp_path: Path,
) -> None:
    port = free_port()
    fixed = fake_model("a", "--port", str(port), connect=f'"http://127.0.0.1:{port}"')
    config = configuration(fixed, fake_model("b"))
    (tmp_path / "second").mkdir()
    with (
        running_gateway(tmp_path, config) as first,
        running_gateway(tmp_path / "second", config) as second,
    ):
        assert first.chat("a").status_code == 200
        holder = first.engine_of("a").pid
        status, code, message = second.error_of("a")
        assert (status, code) == (502, "engine_failed")
        assert f"port {port} is held by pid {holder}" in message
        assert second.chat("b").status_code == 200
        assert first.chat("a").status_code == 200
        assert first.engine_of("a").pid == holder


# -- SIGKILL of the gateway ------------------------------------------------------------------


def during_start(gateway: GatewayProcess, others: ThreadPoolExecutor) -> None:
    others.submit(gateway.chat, "loads-long")
    gateway.wait_for_line(r"loads-long:4096 \| fake engine: listening")


def while_idle(gateway: GatewayProcess, others: ThreadPoolExecutor) -> None:
    gateway.chat("a")
    gateway.chat("secondary")


def in_mid_stream(gateway: GatewayProcess, others: ThreadPoolExecutor) -> None:
    others.submit(gateway.chat, "slow", max_tokens=3000)
    others.submit(gateway.chat, "slow", stream=True, max_tokens=3000)
    gateway.wait_for_line("slow:4096: ready in")


def while_an_engine_drains(gateway: GatewayProcess, others: ThreadPoolExecutor) -> None:
    gateway.chat("a")  # a load that was never measured is taken to last 10 s, and a turn longer
    in_mid_stream(gateway, others)
    others.submit(gateway.chat, "a")
    gateway.wait_for_line("slow:4096: draining")


def while_an_engine_ignores_its_end(gateway: GatewayProcess, others: ThreadPoolExecutor) -> None:
    gateway.chat("stubborn")
    others.submit(gateway.chat, "a")
    gateway.wait_for_line("stubborn:4096: stopping")


def while_an_engine_is_stopped(gateway: GatewayProcess, others: ThreadPoolExecutor) -> None:
    gateway.chat("a")
    gateway.engine_of("a").suspend()


def while_there_is_a_grandchild(gateway: GatewayProcess, others: ThreadPoolExecutor) -> None:
    gateway.chat("heirs")
    assert len(grandchildren(gateway)) == 1


def while_an_engine_floods_its_pipe(gateway: GatewayProcess, others: ThreadPoolExecutor) -> None:
    gateway.chat("flood")
    others.submit(gateway.chat, "flood", stream=True, max_tokens=3000)


@pytest.mark.parametrize(
    "point",
    [
        during_start,
        while_idle,
        in_mid_stream,
        while_an_engine_drains,
        while_an_engine_ignores_its_end,
        while_an_engine_is_stopped,
        while_there_is_a_grandchild,
        while_an_engine_floods_its_pipe,
    ],
    ids=lambda point: point.__name__.replace("_", " "),
)
def test_nothing_is_left_one_second_after_the_gateway_was_killed(
    point: Callable[[GatewayProcess, ThreadPoolExecutor], None],
    tmp_path: Path,
    others: ThreadPoolExecutor,
) -> None:
    config = configuration(
        fake_model("a"),
        fake_model("secondary", engine="presets.engines.llamacpp_secondary"),
        fake_model("loads-long", "--load-s", "60"),
        fake_model("slow", "--interval-s", "0.02"),
        fake_model("stubborn", "--ignore-sigterm"),
        fake_model("heirs", "--hold-port-grandchild"),
        fake_model("flood", "--flood"),
        fairness_window=FAIRNESS_S,
    )
    with running_gateway(tmp_path, config) as gateway:
        point(gateway, others)
        assert gateway.engines()
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.wait()
        gateway.assert_nothing_left(within_s=1.0)
