"""Process groups: starting a child in one of its own, and signalling all of it.

Linux and macOS in full. On Windows there are no process groups to signal: a child is ended alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from trio_gateway.engine.process.open_files import limit_of_children

HAS_GROUPS = sys.platform != "win32"

# The child waits in this shell until the gateway has told the reaper about it, then becomes the
# engine (same pid). A gateway killed in between closes the pipe, and the shell ends.
_GATE = 'read -r go || exit 125; exec "$@" </dev/null'


async def spawn_in_group(
    argv: Sequence[str], env: Mapping[str, str], workdir: Path
) -> trio.Process:
    """Start a child in its own session, held at the gate: `open_gate` lets it run.

    stdout and stderr come out of one pipe, in the order in which they were written.

    Raises:
        OSError: it could not be started.
    """
    command = ["/bin/sh", "-c", _gate(), "sh", *argv] if HAS_GROUPS else list(argv)
    return await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        cwd=workdir,
        start_new_session=HAS_GROUPS,
    )


def _gate() -> str:
    files = limit_of_children()
    return _GATE if files is None else f"ulimit -S -n {files}; {_GATE}"


def open_gate(process: trio.Process) -> None:
    """Let a child of `spawn_in_group` run. Without effect on one that is gone already."""
    if HAS_GROUPS:
        tell(process, b"go\n")


def tell(child: trio.Process, line: bytes) -> None:
    """Write to a child's stdin; without effect on one that is gone.

    A line of far less than PIPE_BUF is written at once, and needs no task that waits.
    """
    assert isinstance(child.stdin, trio.lowlevel.FdStream)
    with contextlib.suppress(BrokenPipeError):
        os.write(child.stdin.fileno(), line)


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
