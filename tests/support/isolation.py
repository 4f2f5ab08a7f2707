"""What keeps the tests apart from their user, from each other, and from what they started.

All of it is for `tests/conftest.py`.
"""

from __future__ import annotations

import functools
import multiprocessing.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil

FOLDERS = (
    "HOME",  # on macOS all of them are in it
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
)
# What a person may have set for their own gateway, engines and clients; and a proxy, which the
# clients would ask for this machine's own addresses.
SETTINGS = re.compile(
    r"(TRIO_)?GATEWAY_(?!TEST_)|(LLAMA|OPENAI|ANTHROPIC|OLLAMA|LITELLM|LLM|HF)_|(HTTPS?|ALL)_PROXY$",
    re.IGNORECASE,
)
RUN = "GATEWAY_TEST_RUN"  # inherited by whatever the tests start, and so its mark
TEST = "PYTEST_CURRENT_TEST"  # set by pytest, inherited as well
GONE_WITHIN_S = 5.0
STARTS = (
    (subprocess.Popen, "__init__"),
    (multiprocessing.util, "spawnv_passfds"),
    (os, "fork"),
    (os, "forkpty"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
    (os, "system"),
)
# A background job of a script ignores these, and so would every gateway that a test starts.
OF_A_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def run_mark() -> str:
    """One for all workers; what a worker starts has its own behind a dot."""
    return os.environ.setdefault(RUN, uuid4().hex)


@contextmanager
def folders_of_nobody(folder: Path) -> Iterator[str]:
    """The user's own folders and settings are out of reach, for the tests and all that they
    start. Gives the mark of what is started."""
    mark = f"{run_mark()}.{uuid4().hex}"
    before = dict(os.environ)
    for name in FOLDERS:
        (folder / name.lower()).mkdir()
        os.environ[name] = str(folder / name.lower())
    for name in [name for name in os.environ if SETTINGS.match(name)]:
        del os.environ[name]
    os.environ[RUN] = mark
    try:
        yield mark
    finally:
        os.environ.clear()
        os.environ.update(before)


def signals_as_from_a_terminal() -> None:
    """Ignored signals are inherited: here they are as a person at a terminal has them."""
    for number in OF_A_TERMINAL:
        if signal.getsignal(number) is signal.SIG_IGN:
            by_default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
            signal.signal(number, by_default)


def start_guardian() -> subprocess.Popen[bytes]:
    """Once its stdin is closed, by us or by our end, it ends what has the mark of this run."""
    argv = [sys.executable, "-m", "tests.support.guardian", run_mark()]
    # Without the mark itself, and none of what it runs counts for the coverage.
    env = {k: v for k, v in os.environ.items() if k != RUN and not k.startswith("COVERAGE_")}
    return subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, start_new_session=True, cwd=Path(__file__).parents[2]
    )


def end_what_is_left(mark: str, within_s: float = GONE_WITHIN_S) -> list[str]:
    """Kill the processes with this mark that still run then, and say what they were and whose."""
    found = {process: env for process in psutil.process_iter() if (env := _marked(process, mark))}
    _, left = psutil.wait_procs(found, timeout=within_s)
    said = []
    for process in left:
        try:
            said.append(f"{process.pid} {process.cmdline()} of {found[process].get(TEST)}")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=GONE_WITHIN_S)
    return said


def _marked(process: psutil.Process, mark: str) -> Mapping[str, str]:
    """Its environment, if it has the mark; also after its parent has gone."""
    try:
        env: Mapping[str, str] = process.environ()
        alive = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
        return env if alive and env.get(RUN, "").startswith(mark) else {}
    except psutil.Error:
        return {}


class ProcessGuard:
    """Refuses to start a process where none may be started.

    Not by an audit hook in Python: under coverage, CPython 3.11 lets no two threads begin at once
    then ("another trace function is being installed").
    """

    def __init__(self) -> None:
        self.allows = True
        self.refused: list[str] = []
        for owner, name in STARTS:
            setattr(owner, name, self._guarded(getattr(owner, name), f"{owner.__name__}.{name}"))

    def _guarded(self, start: Callable[..., object], name: str) -> Callable[..., object]:
        @functools.wraps(start)
        def guarded(*args: object, **kwargs: object) -> object:
            if not self.allows:
                self.refused.append(name)
                raise AssertionError("only tests marked `processes` may start one")
            return start(*args, **kwargs)

        return guarded
