"""A signal at each moment of a gateway's life, by each command, however SIGINT was inherited.

A moment is held (`tests/support/moments`), so each of these is the same on a busy machine. `nox -s
chaos` tries them all, here each moment has a few; and random moments as well.
"""

from __future__ import annotations

import enum
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.harness import SERVE, WAIT_S, chat_body, configuration, fake_model, started
from tests.support.held import (
    COMMANDS,
    ON_TERMINAL,
    SIGNALS,
    HeldGateway,
    held_gateway,
    sent_numbers,
    told_well,
)
from tests.support.patience import eventually

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

ALL = "TRIO_GATEWAY_TEST_ALL_MOMENTS"


class Phase(enum.Enum):
    NO_LOOP = "nothing has to end in order: the signal ends it"
    STARTING = "what was begun ends in order"
    READY = "all that was ready ends in order"


CONFIG = "trio_gateway.config.locate:load_config"
SPAWN = "trio_gateway.engine.process.groups:spawn_in_group"
END = "trio_gateway.engine.process.groups:ask_group_to_end"
# By name: where it is held, and what that is. None: it is not held, but has said that it is ready.
OF_SERVE = {
    "before imports": ("click", Phase.NO_LOOP),
    "before the configuration": (CONFIG, Phase.NO_LOOP),
    "after the first line": ("trio_gateway.server.gateway_server", Phase.NO_LOOP),
    "before listeners": ("trio_gateway.server.http.listening:Listening.open", Phase.STARTING),
    "before the reaper": ("trio_gateway.engine.process.reaper:Reaper.run", Phase.STARTING),
    "after the reaper": ("trio_gateway.engine.kv.carryover:KvCarryover.run", Phase.STARTING),
    "listening": ("hypercorn.trio.lifespan:Lifespan.handle_lifespan", Phase.STARTING),
    "ready": (None, Phase.READY),
    "engine starting": (SPAWN, Phase.READY),
    "engine stopping": (END, Phase.READY),
}
OF_HYPERCORN = {
    "before imports": ("trio_gateway.server.gateway", Phase.NO_LOOP),
    "before the configuration": (CONFIG, Phase.NO_LOOP),
    "lifespan startup": ("trio_gateway.server.http.install:install", Phase.STARTING),
    "after the reaper": ("trio_gateway.engine.kv.carryover:KvCarryover.run", Phase.STARTING),
    "ready": (None, Phase.READY),
    "engine starting": (SPAWN, Phase.READY),
    "engine stopping": (END, Phase.READY),
}
OF_COMMAND = {"serve": OF_SERVE, "hypercorn": OF_HYPERCORN, "hypercorn -w 0": OF_HYPERCORN}
SAYS_READY = {"serve": "Ready. Base URL", "hypercorn": "Running on", "hypercorn -w 0": "Running on"}


def cases() -> list[tuple[str, str, str, bool]]:
    """Command, moment, what is sent, and whether SIGINT was inherited as ignored."""
    points = [(command, moment) for command, table in OF_COMMAND.items() for moment in table]
    every = [(*point, sent, how) for point in points for sent in SIGNALS for how in (False, True)]
    if ALL in os.environ:
        return every
    # Coprime steps: each moment, each signal and each way with each of the others, in few starts.
    size = len(SIGNALS) * 2
    return [every[3 * index % size + index * size] for index in range(len(points))]


def chat(gateway: HeldGateway) -> None:
    """Wants an engine; whatever comes of it."""
    url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
    with suppress(httpx.HTTPError), httpx.Client(trust_env=False, timeout=60) as client:
        client.post(url, json=chat_body("slow", max_tokens=2))


def signal_at(gateway: HeldGateway, command: str, moment: str) -> None:
    where, phase = OF_COMMAND[command][moment]
    gateway.start(where)
    if phase is Phase.READY:
        gateway.until(SAYS_READY[command])
    if where is SPAWN:
        threading.Thread(target=chat, args=[gateway], daemon=True).start()
    if where is END:  # an engine runs, and the first signal stops it
        chat(gateway)
        gateway.signal(slice(1))
        gateway.until("held")
        gateway.signal(slice(1, None))
    elif where is not None:
        gateway.until("held")
        gateway.signal()
    else:
        gateway.signal()


@pytest.mark.parametrize(("command", "moment", "sent", "ignored"), cases())
def test_a_signal_ends_it_at_any_moment(
    command: str, moment: str, sent: str, ignored: bool, tmp_path: Path
) -> None:
    where, phase = OF_COMMAND[command][moment]
    options = ["--sigint-ignored"] if ignored else []
    with held_gateway(tmp_path, command, sent, *options) as gateway:
        signal_at(gateway, command, moment)
        # A terminal tells the leader of its session only, which is hypercorn: its child goes on.
        by_itself = phase is Phase.NO_LOOP and (command, sent) != ("hypercorn", ON_TERMINAL)
        if where is not None and not by_itself:
            gateway.release()
        early = 128 + sent_numbers(sent)[0]
        if command == "hypercorn":
            early = 0  # it forgets what its child ended with
        assert gateway.end() == (0 if phase is Phase.READY else early)
        assert gateway.left() == []
        said = gateway.output
        assert told_well(said)
        if sent != ON_TERMINAL and phase is not Phase.READY:
            assert len([line for line in said.splitlines() if "SIG" in line]) == 1


def test_an_end_with_a_traceback_is_not_well_told() -> None:
    assert told_well("INFO SIGINT: stopping")
    assert not told_well("Traceback (most recent call last):")
    assert not told_well("Aborted!")


@pytest.mark.parametrize("gone", ["with a signal", "without a signal"])
@pytest.mark.parametrize("command", ["serve", "hypercorn -w 0"])
def test_a_terminal_that_is_gone_disturbs_nobody(command: str, gone: str, tmp_path: Path) -> None:
    """Without a signal (`disown`, `nohup`) it serves on; what it writes there goes nowhere."""
    options = ["--nohup"] if gone == "without a signal" else []
    with held_gateway(tmp_path, command, ON_TERMINAL, *options) as gateway:
        gateway.start(None)
        gateway.until(SAYS_READY[command])
        gateway.signal()
        if options:
            url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
            answer = httpx.post(url, json=chat_body("slow"), trust_env=False, timeout=60)
            assert answer.status_code == 200
            gateway.process.send_signal(signal.SIGTERM)
        assert gateway.end() == 0
        assert gateway.left() == []


def test_a_reader_of_its_output_that_is_gone_does_not_end_it(tmp_path: Path) -> None:
    """As in `trio-gateway serve | head -1`."""
    file = tmp_path / "gateway.lua"
    file.write_text(configuration(fake_model("m")))
    with started([*SERVE, str(file)], start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert eventually(lambda: bool(psutil.Process(process.pid).net_connections()), WAIT_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) in (0, 128 + signal.SIGTERM)


def test_the_commands_are_those_that_have_moments() -> None:
    assert {*OF_COMMAND} == {*COMMANDS} - {"nox -s gateway"}
