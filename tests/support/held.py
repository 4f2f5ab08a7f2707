"""A gateway that is held at a moment, so that a test can signal it just then; see `moments/`."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.harness import END_S, WAIT_S, configuration, fake_model, free_port
from tests.support.isolation import RUN, end_what_is_left
from tests.support.patience import eventually, patient

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
APP = ("-k", "trio", "-b", "127.0.0.1:{port}", "trio_gateway.app:app")
COMMANDS = {
    "serve": (sys.executable, "-m", "trio_gateway", "serve"),
    "hypercorn": (str(BIN / "hypercorn"), *APP),
    "hypercorn -w 0": (str(BIN / "hypercorn"), "-w", "0", *APP),
    "nox -s gateway": (str(BIN / "nox"), "--no-venv", "--no-install", "-s", "gateway"),
}
SIGNALS = {
    "SIGINT": (signal.SIGINT,),
    "SIGTERM": (signal.SIGTERM,),
    "closed terminal": (),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM twice": (signal.SIGTERM, signal.SIGTERM),
}
ON_TERMINAL = "closed terminal"


class HeldGateway:
    """A gateway with a fake engine, started as `sent` needs it; `options` of `started_as.py`."""

    def __init__(self, folder: Path, command: str, sent: str, *options: str) -> None:
        self.port = free_port()
        self.sent = sent
        self._folder = folder
        self._log = folder / "log"
        self._said = b""
        self._terminal: int | None = None
        self._command = [*options]
        self._command += ["--on-terminal"] if sent == ON_TERMINAL else []
        self._command += [part.format(port=self.port) for part in COMMANDS[command]]
        self.mark = f"{os.environ[RUN]}.{folder.name}"
        self.process: subprocess.Popen[bytes]

    def start(self, moment: str | None, *, hold: bool = True) -> None:
        config = self._folder / "gateway.lua"
        listen = {"shutdown_grace": "0.5", "engine_stop_timeout": "2"}
        models = (fake_model("slow", "--interval-s", "0.02"), fake_model("other"))
        config.write_text(configuration(*models, listen=f'"127.0.0.1:{self.port}"', **listen))
        env = {
            **os.environ,
            RUN: self.mark,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "TRIO_GATEWAY_CONFIG": str(config),
            "XDG_CACHE_HOME": str(self._folder / "cache"),
            "XDG_STATE_HOME": str(self._folder / "state"),
        }
        if moment is not None:
            env |= {
                "PYTHONPATH": str(HERE / "moments"),
                "TRIO_GATEWAY_TEST_MOMENT": moment,
                "TRIO_GATEWAY_TEST_HERE": str(self._folder / "here"),
            }
            if hold:
                os.mkfifo(self._folder / "go")
                env["TRIO_GATEWAY_TEST_GO"] = str(self._folder / "go")
        argv = [sys.executable, "-S", str(HERE / "started_as.py"), *self._command]
        with self._log.open("wb") as log:
            slave = None
            if self.sent == ON_TERMINAL:
                self._terminal, slave = pty.openpty()
                os.set_blocking(self._terminal, False)
            output = log.fileno() if slave is None else slave
            self.process = subprocess.Popen(
                argv, env=env, cwd=HERE.parents[1], start_new_session=True, stdout=output,
                stdin=subprocess.DEVNULL if slave is None else slave, stderr=output,
            )  # fmt: skip
            if slave is not None:
                os.close(slave)

    @property
    def output(self) -> str:
        """All that it has written so far."""
        if self._terminal is not None:
            with suppress(OSError):
                while select.select([self._terminal], [], [], 0)[0]:
                    self._said += os.read(self._terminal, 65536)
        return (self._said + self._log.read_bytes()).decode(errors="replace")

    def reached(self) -> bool:
        here = self._folder / "here"
        return here.exists() and here.read_text().endswith("\n")

    def until(self, what: str) -> None:
        """Wait until it is held, or until it has written some text."""

        def come() -> bool:
            assert self.process.poll() is None, self.output
            return self.reached() if what == "held" else what in self.output

        assert eventually(come, WAIT_S), self.output

    def signal(self, which: slice = slice(None)) -> None:
        """What was chosen, or a part of it. As a terminal does it: all of its group gets it."""
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None
        for number in SIGNALS[self.sent][which]:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def release(self) -> None:
        """Let it go on. What it was sent before is handled first."""

        def opened() -> bool:
            with suppress(OSError):  # it has not opened its end yet
                os.close(os.open(self._folder / "go", os.O_WRONLY | os.O_NONBLOCK))
                return True
            return False

        assert eventually(opened, WAIT_S)

    def end(self, within_s: float = END_S) -> int | None:
        """Its exit code; None if it does not end."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(within_s)
        return None

    def left(self, within_s: float = 1.0) -> list[str]:
        return end_what_is_left(self.mark, patient(within_s))


def sent_numbers(sent: str) -> Sequence[signal.Signals]:
    return SIGNALS[sent] or (signal.SIGHUP,)


def told_well(output: str) -> bool:
    """Whether a gateway that was signalled says it without a traceback.

    multiprocessing's own helper, which hypercorn's child has, dies of a SIGHUP, and says so."""
    ours = output.partition("resource_tracker: process died unexpectedly")[0]
    return not any(word in ours for word in ("Traceback", "Aborted"))


@contextmanager
def held_gateway(folder: Path, command: str, sent: str, *options: str) -> Iterator[HeldGateway]:
    """One that the block starts; nothing of it outlives the block."""
    gateway = HeldGateway(folder, command, sent, *options)
    try:
        yield gateway
    finally:
        if hasattr(gateway, "process"):
            gateway.process.kill()
            gateway.process.wait()
        gateway.left(within_s=0)
