"""`trio-gateway yield`, as it is typed: a command runs while a gateway keeps memory free for it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from tests.support.harness import (
    GatewayProcess,
    chat_body,
    configuration,
    fake_variant,
    free_port,
    model,
    running_gateway,
    started,
)
from tests.support.patience import eventually
from trio_gateway.commands.root import root
from trio_gateway.stop_signals import StopSignals

pytestmark = pytest.mark.processes
M = model("m", fake_variant().replace("{", '{ memory = "10GiB",', 1))
POOL = 'pools = { primary = { memory = "16GiB" } }\n'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    config = configuration(M, listen=f'"127.0.0.1:{free_port()}"') + POOL
    with running_gateway(tmp_path_factory.mktemp("yield"), config) as running:
        yield running


@pytest.fixture(scope="module")
def config(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("asked") / "gateway.lua"
    address = str(httpx.URL(gateway.base_url).netloc, "ascii")
    file.write_text(configuration(M, listen=f'"{address}"') + POOL)
    return file


def typed(config: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "trio_gateway", "yield", "-c", str(config), *words]


def ask(config: Path, *words: str) -> Result:
    return CliRunner().invoke(root, ["yield", "-c", str(config), *words], obj=StopSignals())


def states(gateway: GatewayProcess) -> list[str]:
    with gateway.client() as client:
        return [row["state"] for row in client.get("/gateway/yield").json()["yields"]]


def test_the_command_runs_once_the_room_is_there_and_its_code_is_passed_on(
    gateway: GatewayProcess, config: Path
) -> None:
    with gateway.client() as client:
        assert client.post("/v1/chat/completions", json=chat_body("m")).status_code == 200
    look = f"import httpx, sys; print(httpx.get('{gateway.base_url}/gateway/engines').text)"
    argv = typed(config, "12GiB", "--", sys.executable, "-c", f"{look}; sys.exit(7)")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7
    assert '"engines":[]' in done.stdout
    assert "waiting for m:4096 to leave\n12.0 GiB of the pool primary are free" in done.stderr
    assert eventually(lambda: not states(gateway), 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_commands_and_the_room_is_given_back(
    gateway: GatewayProcess, config: Path, number: signal.Signals
) -> None:
    command = "import time; print('runs', flush=True); time.sleep(60)"
    with started(typed(config, "1GiB", "--", sys.executable, "-c", command)) as holder:
        assert holder.stdout is not None
        while "runs" not in holder.stdout.readline():
            pass
        assert states(gateway) == ["held"]
        holder.send_signal(number)
        code = holder.wait(30)
    # Python ends with 130 itself, where SIGINT is not ignored.
    assert code == 128 + number
    assert eventually(lambda: not states(gateway), 5)


def test_one_whose_holder_is_killed_ends(gateway: GatewayProcess, config: Path) -> None:
    with started(typed(config, "1GiB", "--", "sleep", "5")) as holder:
        assert eventually(lambda: states(gateway) == ["held"], 20)
        holder.kill()
        assert eventually(lambda: not states(gateway), 5)


def test_without_a_command_it_lasts_for_some_seconds(config: Path, gateway: GatewayProcess) -> None:
    result = ask(config, "1GiB", "--seconds", "0.5")
    assert result.exit_code == 0
    assert result.output.startswith("1.0 GiB of the pool primary are free until ")
    assert eventually(lambda: not states(gateway), 5)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["1GiB"], 2, "name a COMMAND, after --, or say --seconds"),
        (["1GiB", "--", "no-such-command"], 127, "no-such-command: no such command"),
        (["lots", "--", "true"], 1, "memory: expected a size"),
        (["99TiB", "--", "true"], 1, "99.0 TiB are more than the pool primary has: 16.0 GiB"),
        (["1GiB", "--pool", "x", "--", "true"], 1, "no pool 'x'; known: primary"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_runs(
    config: Path, gateway: GatewayProcess, words: list[str], code: int, said: str
) -> None:
    result = ask(config, *words)
    assert (result.exit_code, said in result.output) == (code, True), result.output


def test_without_a_gateway_nothing_has_to_make_room(tmp_path: Path) -> None:
    file = tmp_path / "gateway.lua"
    file.write_text(configuration(M, listen=f'"127.0.0.1:{free_port()}"'))
    result = ask(file, "1GiB", "--", sys.executable, "-c", "raise SystemExit(3)")
    assert (result.exit_code, "no gateway runs" in result.output) == (3, True)
