"""Everything that differs between operating systems: process groups, signals, ports, the reaper.

Linux and macOS in full. On Windows there are no process groups to signal and no reaper: an engine
is ended alone, and a gateway that is killed hard leaves its engine behind.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import trio

log = logging.getLogger(__name__)

HAS_GROUPS = sys.platform != "win32"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# The child waits in this shell until the gateway has told the reaper about it, then becomes the
# engine (same pid). A gateway killed in between closes the pipe, and the shell ends.
_GATE = 'read -r go || exit 125; exec "$@" </dev/null'

_REAPER_PROGRAM = Path(__file__).with_name("reaper_program.py")
_REAPER_END_S = 2.0
_TOOL_END_S = 1.0
_REAPER_RESTART_PAUSE_S = 1.0


async def spawn_in_group(
    argv: Sequence[str], env: Mapping[str, str], workdir: Path
) -> trio.Process:
    """Start a child in its own session, held at the gate: `open_gate` lets it run.

    stdout and stderr come out of one pipe, in the order in which they were written.

    Raises:
        OSError: it could not be started.
    """
    command = ["/bin/sh", "-c", _GATE, "sh", *argv] if HAS_GROUPS else list(argv)
    return await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        cwd=workdir,
        start_new_session=HAS_GROUPS,
    )


def open_gate(process: trio.Process) -> None:
    """Let a child of `spawn_in_group` run. Without effect on one that is gone already."""
    if HAS_GROUPS:
        with contextlib.suppress(BrokenPipeError):
            os.write(_pipe_fd(process), b"go\n")


def _pipe_fd(process: trio.Process) -> int:
    """Few bytes go to a child at a time: written at once, they need no task that waits."""
    assert isinstance(process.stdin, trio.lowlevel.FdStream)
    return process.stdin.fileno()


async def run_tool(
    argv: Sequence[str], stdin: bytes, reaper: Reaper | None
) -> tuple[int | None, bytes]:
    """Run a short program; its exit code and what it printed. Killed with its group on cancel.

    Raises:
        OSError: it could not be started.
    """
    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=HAS_GROUPS,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if reaper is not None:
        reaper.register(process.pid)
    try:
        async with process.stdin, process.stdout, trio.open_nursery() as nursery:
            nursery.start_soon(_feed, process.stdin, stdin)
            printed = b"".join([bytes(piece) async for piece in process.stdout])
        await process.wait()
    finally:
        kill_group(process.pid)
        # Shielded so that a cancelled caller leaves no zombie; a killed process is gone at once.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _TOOL_END_S):
            await process.wait()
        if reaper is not None:
            reaper.unregister(process.pid)
    return process.returncode, printed


async def _feed(stream: trio.abc.SendStream, data: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError):  # it need not read all of it
        await stream.send_all(data)
    await stream.aclose()


def signal_group(group: int, number: int) -> bool:
    """Signal every process of the group; False if there is none."""
    try:
        if HAS_GROUPS:
            os.killpg(group, number)
        else:
            os.kill(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS: only zombies are left in it
        return False
    return True


def ask_group_to_end(group: int) -> bool:
    """SIGTERM, and SIGCONT so that a stopped process sees it."""
    found = signal_group(group, signal.SIGTERM)
    if found and HAS_GROUPS:
        signal_group(group, signal.SIGCONT)
    return found


def kill_group(group: int) -> bool:
    return signal_group(group, signal.SIGKILL if HAS_GROUPS else signal.SIGTERM)


def pick_free_port(taken: set[int], host: str = "127.0.0.1") -> int:
    """A port of this machine that nothing listens on now, none of `taken`.

    Raises:
        OSError: the host is none of this machine's addresses, or no descriptor is left.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port


async def address_in_use(host: str, port: int) -> bool:
    """Whether something listens there. False as well for an address that is not this machine's.

    Raises:
        OSError, UnicodeError: the host's name means nothing.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as probe:
            # As servers do: the closed connections of the last engine are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if is_address_in_use(error):
                    return True
    return False


def is_address_in_use(error: OSError) -> bool:
    return error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE))


def listener_of_group(group: int, port: int) -> bool | None:
    """Whether a process of the group listens on the port; None where that cannot be read."""
    readable = False
    for process in _group_members(group):
        try:
            connections = process.net_connections(kind="tcp")
        except (psutil.Error, OSError):
            continue
        readable = True
        if any(_listens_on(c, port) for c in connections):
            return True
    return False if readable else None


def _group_members(group: int) -> Iterator[psutil.Process]:
    """The leader first: looking for its children means reading the whole process table."""
    with contextlib.suppress(psutil.Error, OSError):
        leader = psutil.Process(group)
        yield leader
        yield from leader.children(recursive=True)


def _listens_on(connection: Any, port: int) -> bool:
    at = connection.laddr
    return bool(connection.status == psutil.CONN_LISTEN and at and at.port == port)


def describe_port_holder(port: int) -> str:
    """`"pid 123 (nginx)"` for an error message, or a hint where the holder cannot be read."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if _listens_on(connection, port):
                if connection.pid is None:
                    break
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass
    return "a process of another user (its pid cannot be read)"


class Reaper:
    """The gateway's side of `reaper.py`. `run` owns the process; the rest are quick writes."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._fd: int | None = None
        self.pid: int | None = None

    def register(self, group: int) -> None:
        self._groups.add(group)
        self._write(b"+%d\n" % group)

    def unregister(self, group: int) -> None:
        self._groups.discard(group)
        self._write(b"-%d\n" % group)

    def _write(self, line: bytes) -> None:
        if self._fd is not None:
            # A reaper that just died is started again with all groups, see `run`.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._fd, line)  # far less than PIPE_BUF: all of it, at once

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a reaper running until cancelled."""
        if not HAS_GROUPS:
            task_status.started()
            await trio.sleep_forever()
        ended: int | None = None
        while True:
            started_at = trio.current_time()
            try:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-I", "-S", str(_REAPER_PROGRAM)],
                    stdin=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C in the terminal is not for it
                )
            except OSError as error:
                if ended is None:
                    raise  # without a first one the gateway must not start engines
                log.error("the reaper cannot be started again: %s; trying on", error.strerror)
                await trio.sleep(_REAPER_RESTART_PAUSE_S)
                continue
            try:
                self.pid, self._fd = process.pid, _pipe_fd(process)
                for group in self._groups:
                    self._write(b"+%d\n" % group)
                if ended is None:
                    task_status.started()
                else:
                    log.error("the reaper (pid %d) was ended; now pid %d", ended, process.pid)
                await process.wait()
                ended = process.pid
            finally:
                self._fd = self.pid = None
                await _end_reaper(process)
            # One that ends as soon as it starts must not make this a busy loop.
            await trio.sleep_until(started_at + _REAPER_RESTART_PAUSE_S)


async def _end_reaper(process: trio.Process) -> None:
    # Shielded because it runs while being cancelled: the reaper ends by itself at the pipe's
    # end, after killing what is still registered.
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _REAPER_END_S):
        if process.stdin is not None:
            await process.stdin.aclose()
        await process.wait()
    if process.returncode is None:
        process.kill()
        # Shielded for the same reason; a killed process of ours is gone in milliseconds.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _REAPER_END_S):
            await process.wait()


@contextlib.contextmanager
def single_worker(parent: int) -> Iterator[bool]:
    """True in the first process of this parent that asks, for as long as the block runs."""
    if not HAS_GROUPS:
        yield True
        return
    import fcntl

    path = Path(tempfile.gettempdir()) / f"trio-gateway-{os.getuid()}-{parent}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
