"""Commands that ask a gateway over TLS, under either server, until it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result

from tests.support.harness import (
    HYPERCORN,
    SERVE,
    configuration,
    fake_model,
    free_port,
    running_gateway,
    started,
)
from trio_gateway.commands.root import root
from trio_gateway.stop_signals import StopSignals

pytestmark = pytest.mark.processes
FOLLOWING = (("logs", "-f"), ("logs", "-f", "m", "gateway"), ("top", "--json"))


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def tls(ca: trustme.CA, folder: Path, name: str) -> tuple[Path, Path]:
    """A chain and its key."""
    issued, certificate, key = ca.issue_cert(name), folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def ask(config: Path, command: str, *more: str) -> Result:
    return CliRunner().invoke(root, [command, "-c", str(config), *more], obj=StopSignals())


def follow(stack: ExitStack, config: Path) -> Iterator[subprocess.Popen[str]]:
    for command, *more in FOLLOWING:
        argv = [sys.executable, "-m", "trio_gateway", command, "-c", str(config), *more]
        follower = stack.enter_context(started(argv))
        assert follower.stdout is not None
        assert follower.stdout.readline()
        yield follower


@pytest.mark.parametrize(
    ("server", "end"), [("serve", signal.SIGKILL), ("hypercorn", signal.SIGTERM)]
)
def test_over_tls_each_finds_the_gateway_and_says_when_it_has_ended(
    tmp_path: Path, ca: trustme.CA, server: str, end: signal.Signals
) -> None:
    """Its certificate is for a name that nobody uses here, of an authority that nobody trusts."""
    certificate, key = tls(ca, tmp_path, "ai.example.org")
    port, config = free_port(), tmp_path / "gateway.lua"
    used = f'{{ certificate = "{certificate}", key = "{key}" }}'
    text = configuration(fake_model("m"), listen=f'"127.0.0.1:{port}"', tls=used)
    under = (*HYPERCORN, "-k", "trio", "-b", f"127.0.0.1:{port}", "--certfile", str(certificate),
             "--keyfile", str(key), "trio_gateway.app:app")  # fmt: skip
    command, ready = (SERVE, r"clients: (\S+)/v1") if server == "serve" else (under, r"on (\S+)")
    with (
        running_gateway(tmp_path, text, command=command, ready=ready) as gateway,
        ExitStack() as stack,
    ):
        assert "m:4096 is loaded, in" in ask(config, "load", "m").stdout
        assert json.loads(ask(config, "status", "--json").stdout)["engines"][0]["model"] == "m"
        assert "no such requests" in ask(config, "requests").stdout
        assert "m:4096: ready in" in ask(config, "logs").stdout
        assert "m is pinned" in ask(config, "pin", "m").stdout
        followers = [*follow(stack, config)]
        (other := tmp_path / "other").mkdir()
        tls(ca, other, "ai.example.org")
        (other / "gateway.lua").write_text(text.replace(str(tmp_path), str(other)))
        wrong = ask(other / "gateway.lua", "status")
        assert "has another certificate than" in wrong.stderr
        gateway.process.send_signal(end)
        for follower in followers:
            said, _ = follower.communicate(timeout=20)
            assert follower.returncode == 1
            assert "Traceback" not in said
            assert said.splitlines()[-1].startswith("trio-gateway: the gateway at https://")
            assert "has ended; its log may say why" in said
    assert "no gateway answers at https://" in ask(config, "status").stderr


def test_a_gateway_with_tls_is_told_where_the_configuration_has_none(
    tmp_path: Path, ca: trustme.CA
) -> None:
    certificate, key = tls(ca, tmp_path, "localhost")
    port = free_port()
    text = configuration(fake_model("m"), listen=f'"127.0.0.1:{port}"')
    under = (*HYPERCORN, "-k", "trio", "-b", f"127.0.0.1:{port}", "--certfile", str(certificate),
             "--keyfile", str(key), "trio_gateway.app:app")  # fmt: skip
    with running_gateway(tmp_path, text, command=under, ready=r"on (\S+)"):
        for command in ("status", "logs"):
            failed = ask(tmp_path / "gateway.lua", command)
            assert "set `server.tls` in the configuration" in failed.stderr
