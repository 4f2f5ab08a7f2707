"""Starts gateways and signals each at a random moment: `nox -s chaos`, or `python -m
tests.support.chaos --starts 3 --seed 7`.

Prints how they ended, for each command, signal, and way of being started; and what was left. Exits
with 1 if anything was left, did not end, or ended with a traceback. What a signal does before the
gateway's first line is Python's, hypercorn's or nox's own: that is counted, and no fault.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.harness import chat_body
from tests.support.held import COMMANDS, SIGNALS, HeldGateway, held_gateway, told_well
from tests.support.isolation import RUN
from tests.support.patience import patient

MOMENT_MAX_S = 1.5  # on a machine with nothing else to do
BETWEEN_MAX_S = 0.2  # two signals
END_S = 25.0  # on a busy machine; the promise is a few seconds
LOST_S = 6.0  # a signal without effect until then, before the gateway's first line, is lost
LEFT_S = 3.0
# Here the gateway's own handlers are set.
OURS = "trio_gateway.stop_signals:StopSignals.install"


@dataclass
class Outcome:
    """How one start ended."""

    command: str
    sent: str
    ignored: bool
    moment_s: float
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
        if self.began and not told_well(self.output):
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
    options = ["--sigint-ignored"] if given.ignored else []
    with held_gateway(folder, given.command, given.sent, *options) as gateway:
        with asking(gateway.port):
            gateway.start(OURS, hold=False)
            time.sleep(given.moment_s)  # at random: that is what is tried
            given.began = gateway.reached()
            given.ready = "Ready. Base" in gateway.output or "Running on" in gateway.output
            begun = time.monotonic()
            _signal(gateway)
            given.code = gateway.end(END_S if given.began else LOST_S)
            if given.code is None and not given.began:
                given.lost = True
                gateway.process.terminate()
                given.code = gateway.end(END_S)
            given.took_s = time.monotonic() - begun
        given.output = gateway.output
        given.left = gateway.left(0 if given.code is None else LEFT_S)
    return given


def _signal(gateway: HeldGateway) -> None:
    count = max(len(SIGNALS[gateway.sent]), 1)
    for index in range(count):
        gateway.signal(slice(index, index + 1))
        if index < count - 1:
            time.sleep(random.uniform(0, BETWEEN_MAX_S))


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
    os.environ.setdefault(RUN, uuid.uuid4().hex)
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
        moment_s = random.uniform(0, patient(MOMENT_MAX_S))
        with tempfile.TemporaryDirectory() as folder:
            got = one(Outcome(command, sent, ignored, moment_s), Path(folder))
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
