"""The schedulers with real engines: 60 requests on two models, in turns, at fixed moments.

    python -m benchmarks.real_trace

Each policy runs in a gateway of its own. Waits come from the gateway's own response headers, swaps
are the engines that got ready after the first.
"""

from __future__ import annotations

import itertools
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import trio
from rich.table import Table

from benchmarks.policies import POLICIES
from benchmarks.scheduler_trace import percentile, wide_console
from tests.support.harness import (
    GatewayProcess,
    chat_body,
    configuration,
    model,
    real_variant,
    running_gateway,
)

REQUESTS = 60
TOKENS = (4, 40)  # of the answers, from and to
MEAN_GAP_S = 0.3
CONTEXT, SLOTS = 2048, 1
# These engines load far faster than large ones do: scaled down with them, and shown in the table.
WINDOW_S = 2.0
SEED = 1


class Question(NamedTuple):
    at: float
    model: str
    tokens: int


class Answer(NamedTuple):
    wait_s: float
    ended_at: float


class RealRun(NamedTuple):
    """`load_s`: median of the loads."""

    swaps: int
    makespan_s: float
    waits_s: list[float]
    load_s: float


def questions(seed: int = SEED) -> list[Question]:
    rng = random.Random(seed)
    gaps = [rng.expovariate(1 / MEAN_GAP_S) for _ in range(REQUESTS)]
    return [
        Question(at, "ab"[number % 2], rng.randint(*TOKENS))
        for number, at in enumerate(itertools.accumulate(gaps))
    ]


def play(policy: str, asked: Sequence[Question]) -> RealRun:
    config = configuration(
        model("a", real_variant(CONTEXT)),
        model("b", real_variant(CONTEXT)),
        fairness_window=f"{WINDOW_S:g}",
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gateway.lua"
        command = (sys.executable, "-m", "benchmarks.policy_gateway", policy, str(file))
        with running_gateway(
            Path(folder), config, command=command, ready=r"listening on (\S+)"
        ) as gateway:
            answers = trio.run(_ask_all, gateway, asked)
            loads = [float(s) for s in re.findall(r": ready in ([\d.]+) s", gateway.log)]
    return RealRun(
        len(loads) - 1,
        max(answer.ended_at for answer in answers),
        sorted(answer.wait_s for answer in answers),
        statistics.median(loads),
    )


async def _ask_all(gateway: GatewayProcess, asked: Sequence[Question]) -> list[Answer]:
    answers: list[Answer] = []
    begun = time.monotonic()
    async with gateway.async_client(timeout_s=300) as client, trio.open_nursery() as nursery:

        async def ask(question: Question) -> None:
            await trio.sleep(question.at)
            body = chat_body(question.model, "Count to a hundred.", max_tokens=question.tokens)
            response = await client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200, response.text
            names = ("X-Gateway-Queue-Ms", "X-Gateway-Load-Ms")
            wait_s = sum(int(response.headers[name]) for name in names) / 1000
            answers.append(Answer(wait_s, time.monotonic() - begun))

        for question in asked:
            nursery.start_soon(ask, question)
    return answers


def table() -> Table:
    asked = questions()
    runs = {policy: play(policy, asked) for policy in POLICIES}
    load_s = statistics.median(run.load_s for run in runs.values())
    shown = Table(
        title=f"{REQUESTS} requests on two real engines in turns, one every {MEAN_GAP_S:g} s;\n"
        f"a load takes {load_s:.2f} s, slots: {SLOTS}, fairness window: {WINDOW_S:g} s"
    )
    headings = ("Policy", "swaps", "makespan s", "mean wait s", "p95 wait s", "max wait s")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading == "Policy" else "right")
    for policy, run in runs.items():
        waits = (statistics.mean(run.waits_s), percentile(run.waits_s, 0.95), run.waits_s[-1])
        numbers = [f"{number:.2f}" for number in (run.makespan_s, *waits)]
        shown.add_row(policy, str(run.swaps), *numbers)
    return shown


if __name__ == "__main__":
    wide_console().print(table())
