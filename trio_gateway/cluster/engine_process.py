"""EngineProcess: an engine as the child of a Ray worker; nothing of it is left, however that ends.

It has a process group of its own, and a reaper (`engine/process/reaper_program.py`) that ends the
group if the worker is killed. Threads, not tasks: a worker has an event loop of Ray's making.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio_gateway

_REAPER = Path(trio_gateway.__file__).parent / "engine" / "process" / "reaper_program.py"
# The child waits in this shell until the reaper knows of it, then becomes the engine (same pid).
_GATE = 'read -r go || exit 125; exec "$@" </dev/null'
RING_LINES = 200
LINES_IN_ERROR = 15
KILL_WAIT_S = 5.0
PORT = "${PORT}"


class EngineGone(Exception):
    """The engine has ended, or could not be started; the message has its last lines."""


class EngineProcess:
    """Started when it is made.

    Args:
        command: the program and its arguments, with `${PORT}` where the port belongs.
        env: variables on top of the worker's own; `${PORT}` is filled in here as well.
        tell: gets each line of its output, from a thread.

    Raises:
        EngineGone: it could not be started.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], tell: Callable[[str], None]
    ) -> None:
        self.port = _free_port()
        argv = [word.replace(PORT, str(self.port)) for word in command]
        own = {name: value.replace(PORT, str(self.port)) for name, value in env.items()}
        self._name, self._tell = argv[0], tell
        self._lines: deque[str] = deque(maxlen=RING_LINES)
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_REAPER)],
            stdin=subprocess.PIPE,
            env={**os.environ},
            start_new_session=True,
        )
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "sh", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own},
                start_new_session=True,
            )
        except OSError as error:
            self._end_reaper()
            raise EngineGone(f"{argv[0]} could not be started: {error}") from error
        self._write(self._reaper, b"+%d\n" % self._process.pid)
        self._write(self._process, b"go\n")
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._pump = threading.Thread(target=self._read, name="engine output", daemon=True)
        self._pump.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises EngineGone, if it has ended."""
        code = self._process.poll()
        if code is None:
            return
        self._pump.join(1.0)  # a child of its own may hold the pipe open
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        last = "\n".join([*self._lines][-LINES_IN_ERROR:])
        raise EngineGone(f"{self._name} {how}" + (f"; its last lines:\n{last}" if last else ""))

    def stop(self, timeout_s: float) -> None:
        """End its whole group: SIGTERM, and SIGKILL `timeout_s` later. Blocks meanwhile."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a stopped process would not see the SIGTERM
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self._signal(signal.SIGKILL)  # also what the engine itself has left behind
        try:
            self._process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            return  # stuck in the kernel; the reaper has it still
        self._write(self._reaper, b"-%d\n" % self._process.pid)
        self._end_reaper()

    def _end_reaper(self) -> None:
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait(KILL_WAIT_S)

    def _signal(self, number: int) -> None:
        # Gone; macOS: only zombies are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        """So that the engine never blocks on its output."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                text = line.decode("utf-8", "replace").rstrip()
                self._lines.append(text)
                self._tell(text)

    @staticmethod
    def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, as `check` will find
            process.stdin.write(line)
            process.stdin.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
