"""Starts gateways and signals each at a random moment: `nox -s chaos`, or `python -m
tests.support.chaos --starts 3 --seed 7`.

Prints how they ended, for each command, signal, and way of being started; and what was left. Exits
with 1 if anything was left, hung, or told of a signal in a way that nobody should see.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.harness import chat_body, configuration, fake_model, free_port
from tests.support.isolation import RUN, end_what_is_left

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
MOMENT_MAX_S = 1.5
END_S = 25.0  # on a busy machine; the promise is a few seconds
HYPERCORN = (
    str(BIN / "hypercorn"), "-k", "trio", "-b", "127.0.0.1:{port}", "trio_gateway.app:app",
)  # fmt: skip
LOST_S = 6.0  # a signal without effect until then, before the gateway's first line, is lost
COMMANDS = {
    "serve": (str(BIN / "trio-gateway"), "serve"),
    "hypercorn": HYPERCORN,
    "hypercorn -w 0": (*HYPERCORN, "-w", "0"),
    "nox -s gateway": (str(BIN / "nox"), "--no-venv", "--no-install", "-s", "gateway"),
}  # fmt: skip
SIGNALS = {
    "SIGINT": (signal.SIGINT,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGHUP": (signal.SIGHUP,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM twice": (signal.SIGTERM, signal.SIGTERM),
    "closed terminal": (),
}
# Here the gateway's own handlers are set.
OURS = "trio_gateway.stop_signals:StopSignals.install"


@dataclass
class Outcome:
    """How one start ended."""

    command: str
    sent: str
    ignored: bool
    moment_s: float
    to_group: bool = False
    began: bool = False  # the gateway's first line had run
    ready: bool = False
    code: int | None = None  # None: it did not end
    took_s: float = 0.0
    output: str = field(default="", repr=False)
    left: list[str] = field(default_factory=list)
    lost: bool = False  # before the gateway's first line, by what runs before it

    @property
    def fault(self) -> str:
        """What should not have happened; empty if nothing."""
        if self.code is None:
            return "did not end"
        if self.left:
            return "left something"
        if self.began and ("Traceback" in self.output or "Aborted" in self.output):
            return "traceback"
        return ""


@contextlib.contextmanager
def asking(port: int) -> Iterator[None]:
    """A client that wants an engine as soon as there is a gateway."""
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=5) as client:
            while not done.wait(0.05):
                with contextlib.suppress(httpx.HTTPError):
                    url = f"http://127.0.0.1:{port}/v1/chat/completions"
                    client.post(url, json=chat_body("slow", max_tokens=50))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def one(given: Outcome, folder: Path) -> Outcome:
    """Start, signal, and wait."""
    port = free_port()
    config = folder / "gateway.lua"
    fakes = (fake_model("slow", "--interval-s", "0.02"), fake_model("other"))
    listen = {"shutdown_grace": "0.5", "engine_stop_timeout": "2"}
    config.write_text(configuration(*fakes, listen=f'"127.0.0.1:{port}"', **listen))
    began = folder / "began"
    mark = f"chaos-{os.getpid()}-{random.getrandbits(64):x}"
    env = {
        **os.environ,
        RUN: mark,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "TRIO_GATEWAY_CONFIG": str(config),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": str(HERE / "moments"),
        "TRIO_GATEWAY_TEST_MOMENT": OURS,
        "TRIO_GATEWAY_TEST_HERE": str(began),
    }
    argv = [sys.executable, "-S", str(HERE / "started_as.py")]
    argv += ["--sigint-ignored"] if given.ignored else []
    on_terminal = given.sent == "closed terminal"
    argv += ["--on-terminal"] if on_terminal else []
    argv += [part.format(port=port) for part in COMMANDS[given.command]]
    log = folder / "log"
    master, slave = pty.openpty() if on_terminal else (-1, -1)
    with log.open("wb") as out, asking(port):
        std = slave if on_terminal else out
        process = subprocess.Popen(
            argv, env=env, stdin=slave if on_terminal else subprocess.DEVNULL, stdout=std,
            stderr=std, start_new_session=True, cwd=HERE.parents[1],
        )  # fmt: skip
        try:
            if on_terminal:
                os.close(slave)
            time.sleep(given.moment_s)  # at random: that is what is tried
            given.began = began.exists()
            if on_terminal:
                os.set_blocking(master, False)
                with contextlib.suppress(OSError):
                    given.output = os.read(master, 1 << 20).decode(errors="replace")
                os.close(master)
            given.ready = "Ready." in (given.output or log.read_text(errors="replace"))
            begun = time.monotonic()
            for number in SIGNALS[given.sent]:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if given.to_group else os.kill)(process.pid, number)
                time.sleep(random.uniform(0, 0.2) if given.sent.endswith("twice") else 0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                given.code = process.wait(END_S if given.began else LOST_S)
            if given.code is None and not given.began:
                given.lost = True
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    given.code = process.wait(END_S)
            given.took_s = time.monotonic() - begun
            given.output += log.read_text(errors="replace")
        finally:
            process.kill()
            process.wait()
            given.left = end_what_is_left(mark, within_s=3 if given.code is not None else 0)
    return given


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=2, help="for each row of the table")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    parser.add_argument("--minutes", type=float, default=20, help="no start after this long")
    parser.add_argument("--only", default="", help="commands with this in their name")
    parser.add_argument("--signal", default="", help="signals with this in their name")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    random.seed(options.seed)
    rows = [
        (command, sent, ignored)
        for command in COMMANDS
        if options.only in command
        for sent in SIGNALS
        if options.signal in sent
        for ignored in (False, True)
    ] * options.starts
    random.shuffle(rows)
    deadline = time.monotonic() + options.minutes * 60
    outcomes = []
    for command, sent, ignored in rows:
        if time.monotonic() > deadline:
            break
        moment_s = random.uniform(0, MOMENT_MAX_S)
        # The command itself takes a SIGHUP as the wish to reload.
        to_group = random.random() < 0.5 or (command, sent) == ("hypercorn", "SIGHUP")
        with tempfile.TemporaryDirectory() as folder:
            got = one(Outcome(command, sent, ignored, moment_s, to_group), Path(folder))
        outcomes.append(got)
        if got.fault or got.lost or options.verbose:
            print(f"{got}\n{got.output[-1500:]}", flush=True)
    table(outcomes)
    sys.exit(any(got.fault for got in outcomes))


def table(outcomes: list[Outcome]) -> None:
    print("| command | signal | SIGINT inherited | starts | exit codes | longest end | faults |")
    print("|---|---|---|---|---|---|---|")
    groups = collections.defaultdict(list)
    for got in outcomes:
        groups[got.command, got.sent, got.ignored].append(got)
    for (command, sent, ignored), found in sorted(groups.items()):
        codes = collections.Counter(_end(g) for g in found)
        said = ", ".join(f"{code}: {n}" for code, n in sorted(codes.items()))
        faults = collections.Counter(g.fault for g in found if g.fault)
        bad = ", ".join(f"{fault} ({n})" for fault, n in faults.items())
        longest = max(g.took_s for g in found)
        how = "ignored" if ignored else "default"
        print(f"| {command} | {sent} | {how} | {len(found)} | {said} | {longest:.1f} s | {bad} |")
    left = sum(len(g.left) for g in outcomes)
    print(f"{len(outcomes)} starts, {left} processes left")


def _end(got: Outcome) -> str:
    when = "ready" if got.ready else "begun" if got.began else "before"
    return f"{when} {'lost' if got.lost else got.code}"


if __name__ == "__main__":
    main()
