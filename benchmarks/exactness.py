"""How exactly a request's need is known before anything is loaded: 500 requests on SmolLM2.

    python -m benchmarks.exactness [--requests N] [--edges N]

The truth is what one bare engine says. Next to it is the gateway's own choice: with a running
engine that counts, with the model's file only, and with nothing that counts. No answers are
generated for that; only the requests nearest below a context's edge are sent, through a real
gateway.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import trio
from rich.table import Table

from benchmarks import exactness_edges
from benchmarks.counters import started
from benchmarks.exactness_requests import CHAT, Case, make_cases
from benchmarks.scheduler_trace import wide_console
from tests.support.harness import configuration, free_port, model, real_variant
from trio_gateway.config.loader import ConfigLoader
from trio_gateway.config.lua.presets import preset
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine
from trio_gateway.engine.overview import Overview
from trio_gateway.models.counting.counter import TokenCounter
from trio_gateway.models.counting.vocabulary import Vocabulary
from trio_gateway.models.model_selector import ContextLengthExceeded, ModelSelector
from trio_gateway.models.need.bounds import answer_tokens, least_answer, lower_bound, need_of
from trio_gateway.models.need.calibration import CountSource
from trio_gateway.models.need.counted_form import CountedForm
from trio_gateway.models.selection import Selection

REQUESTS, EDGES = 500, 25
CONTEXTS = (1024, 2048, 4096, 8192)
DECISIONS = 20  # of each request, for its CPU time


class Decided(NamedTuple):
    """`selection` None: refused as too long. `counted` None: unknown."""

    case: Case
    selection: Selection | None
    lower: int
    upper: int
    counted: int | None


class Engines:
    """What selector and counter ask. An engine, if any, is the smallest variant:
    a larger one that runs is used on purpose, and would hide what a start chooses."""

    def __init__(self, client: LlamaCppEngine | None) -> None:
        info = SimpleNamespace(context=CONTEXTS[0])
        self._engine = client and SimpleNamespace(client=client, info=info)

    def contexts_of(self, _model: str) -> list[int]:
        return [*CONTEXTS]

    def engine_of(self, _model: str) -> Any:
        return self._engine


class Subject:
    """The gateway's selector and counter, with one way to count."""

    def __init__(self, config: GatewayConfig, engines: Engines, vocabulary: Vocabulary) -> None:
        overview = cast(Overview, engines)
        (self.model,) = config.models
        self._counter = TokenCounter(overview, vocabulary, None)
        self._selector = ModelSelector(config, overview, self._counter)

    async def decide(self, case: Case) -> Decided:
        lower = lower_bound(case.endpoint, case.fields, self.model.image_tokens)
        upper = self._selector.upper_bound(self.model, form_of(case))
        try:
            selection = await self._selector.select_variant(self.model, form_of(case))
        except ContextLengthExceeded:
            selection = None
        return Decided(case, selection, lower, upper, None)

    async def count(self, decided: Decided) -> Decided:
        """Afterwards, so that no choice profits from a count that it did not ask for."""
        count = await self._counter.count(self.model, form_of(decided.case))
        return decided._replace(counted=count.tokens if count is not None else None)

    async def cpu_us(self, case: Case) -> float:
        begun = time.thread_time()
        for _ in range(DECISIONS):
            await self._selector.select_variant(self.model, form_of(case))
        return (time.thread_time() - begun) / DECISIONS * 1e6


def form_of(case: Case) -> CountedForm:
    return CountedForm(case.endpoint, case.fields, case.body)


class Results(NamedTuple):
    """By what counts; `cpu_us` of each decision that needed no count."""

    config: GatewayConfig
    decided: dict[str, list[Decided]]
    cpu_us: list[float]


async def decide_all(config: GatewayConfig, cases: Sequence[Case], engine_url: str) -> Results:
    client, decided = LlamaCppEngine(engine_url), dict[str, list[Decided]]()
    idle, running = Vocabulary(), Vocabulary()
    subjects = {
        "running engine": Subject(config, Engines(client), idle),
        "model's file": Subject(config, Engines(None), running),
        "nothing counts": Subject(config, Engines(None), idle),
    }
    async with trio.open_nursery() as nursery:
        await nursery.start(running.run)
        for name, subject in subjects.items():
            chosen = [await subject.decide(case) for case in cases]
            decided[name] = [await subject.count(each) for each in chosen]
        subject, all_chosen = subjects["running engine"], decided["running engine"]
        cpu_us = [await subject.cpu_us(each.case) for each in all_chosen if by_bounds(each)]
        nursery.cancel_scope.cancel(reason="all is counted")
    await client.aclose()
    return Results(config, decided, cpu_us)


# -- measures ---------------------------------------------------------------------------------


def by_bounds(decided: Decided) -> bool:
    return decided.selection is not None and decided.selection.source is CountSource.BOUND


class Judge:
    """Holds choices against the truth."""

    def __init__(self, config: GatewayConfig) -> None:
        (model,) = config.models
        self._least = least_answer(model.min_answer_tokens, CONTEXTS[-1])
        # No answers, so no average turn: the least applies.
        self._default = config.server.default_answer_tokens or self._least

    def need(self, case: Case, default: int | None = None) -> int:
        """As the gateway reckons, with the true tokens of the prompt."""
        answer = answer_tokens(case.endpoint, case.fields)
        return need_of(case.truth, answer, default or self._default, CONTEXTS[-1], self._least)

    def fits(self, case: Case) -> bool:
        return self.need(case) <= CONTEXTS[-1]

    def refuses(self, each: Decided) -> bool:
        return each.selection is not None and each.case.truth >= each.selection.context

    def cuts(self, each: Decided) -> bool:
        """The prompt fits, its answer does not."""
        answer = answer_tokens(each.case.endpoint, each.case.fields)
        held = each.case.truth + (self._least if answer is None else answer)
        return each.selection is not None and each.case.truth < each.selection.context < held

    def is_too_large(self, each: Decided) -> bool:
        return each.selection is not None and each.selection.context > _least_holding(
            self.need(each.case)
        )

    def starts_larger(self, each: Decided) -> bool:
        chosen = each.selection
        return chosen is not None and _least_holding(chosen.start_need) > chosen.context

    def is_large_by_default(self, each: Decided) -> bool:
        """The answer has no maximum, and a variant with `min_answer_tokens` for it is smaller."""
        wanted = _least_holding(self.need(each.case, default=1))
        return each.selection is not None and each.selection.context > wanted


def _least_holding(need: int) -> int:
    return min((context for context in CONTEXTS if context >= need), default=CONTEXTS[-1])


def choices(results: Results) -> Table:
    judge = Judge(results.config)
    counted: dict[str, tuple[Callable[[Decided], bool], str]] = {
        "decided by the bounds": (by_bounds, ""),
        "fits; the chosen variant refuses the prompt": (
            lambda d: judge.fits(d.case) and judge.refuses(d), "0"),
        "fits; the chosen variant cuts the answer": (
            lambda d: judge.fits(d.case) and judge.cuts(d), "0"),
        "fits; chosen larger than necessary": (
            lambda d: judge.fits(d.case) and judge.is_too_large(d), "< 1%"),
        "fits; refused as too long": (lambda d: judge.fits(d.case) and d.selection is None, "0"),
        "too long; refused": (lambda d: not judge.fits(d.case) and d.selection is None, ""),
        "too long; accepted": (lambda d: not judge.fits(d.case) and d.selection is not None, "0"),
        "    of these, the engine refuses the prompt": (
            lambda d: not judge.fits(d.case) and judge.refuses(d), ""),
        "would be started larger, for headroom": (judge.starts_larger, ""),
        "larger than min_answer_tokens needs": (judge.is_large_by_default, ""),
    }  # fmt: skip
    total = len(next(iter(results.decided.values())))
    shown = Table(title=f"the variant chosen for {total} requests, by what can count")
    shown.add_column("Requests")
    for name in results.decided:
        shown.add_column(name, justify="right")
    shown.add_column("To reach")
    for label, (is_so, target) in counted.items():
        numbers = [sum(map(is_so, decided)) for decided in results.decided.values()]
        shown.add_row(label, *(f"{n} ({n / total:.1%})" for n in numbers), target)
    return shown


def errors(results: Results) -> Table:
    shown = Table(title="tokens said, less the true ones")
    for heading in ("Said by", "Requests", "told", "exact", "least", "median", "most", "To reach"):
        left = heading in ("Said by", "Requests", "To reach")
        shown.add_column(heading, justify="left" if left else "right")
    for name, kind, told, target in _sayings(results):
        known = [said - truth for said, truth in told if said is not None]
        exact = f"{known.count(0) / len(known):.1%}" if known else "-"
        ends = (min(known), statistics.median(known), max(known)) if known else ()
        numbers = [f"{number:+,.0f}" for number in ends] or ["-"] * 3
        shown.add_row(name, kind, f"{len(known)} / {len(told)}", exact, *numbers, target)
    return shown


def _sayings(results: Results) -> Iterator[tuple[str, str, list[tuple[int | None, int]], str]]:
    """Who says something of which requests: what, and the truth; and what is to be reached."""
    kinds: dict[str, Callable[[Case], bool]] = {
        "chats": lambda case: case.endpoint == CHAT and not case.fields.tools,
        "chats with tools": lambda case: case.endpoint == CHAT and bool(case.fields.tools),
        "completions": lambda case: case.endpoint != CHAT,
    }
    engine, file, nothing = results.decided.values()
    for kind, is_one in kinds.items():
        for name, source, target in (
            ("running engine", engine, "0"),
            ("model's file", file, "≥ 0"),
        ):
            told = [(d.counted, d.case.truth) for d in source if is_one(d.case)]
            yield name, kind, told, target
    for name, source in (("upper bound", nothing), ("upper bound, learned", engine)):
        yield name, "all", [(d.upper, d.case.truth) for d in source], "≥ 0"
    yield "lower bound", "all", [(d.lower, d.case.truth) for d in nothing], "≤ 0"


def cpu_row(results: Results) -> Table:
    shown = Table("Measured", "Result", "To reach")
    cpu_us = results.cpu_us
    spread = f"{statistics.median(cpu_us):.0f} µs ({max(cpu_us):.0f} at most)" if cpu_us else "-"
    shown.add_row("CPU of a decision by the bounds alone, median", spread, "")
    return shown


# -- all of it --------------------------------------------------------------------------------


def load_config(folder: Path) -> GatewayConfig:
    file = folder / "gateway.lua"
    file.write_text(configuration(model("m", *map(real_variant, CONTEXTS))))
    return ConfigLoader(file).load()


def tables(requests: int = REQUESTS, edges: int = EDGES) -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(Path(folder))
    port, smallest = free_port(), str(CONTEXTS[0])
    command = [
        sys.executable,
        "-m",
        "trio_gateway.engine.clients.embedded_server",
        "--parallel",
        "1",
    ]
    command += ["-m", preset("models", "smollm2"), "-c", smallest, "--port", str(port)]
    with started(command, port) as (client, _):
        cases = make_cases(client, requests)
        results = trio.run(decide_all, config, cases, f"http://127.0.0.1:{port}")
    yield from (choices(results), errors(results), cpu_row(results))
    if edges:
        nearest = exactness_edges.nearest(cases, CONTEXTS, edges)
        yield exactness_edges.table(nearest, CONTEXTS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exactness")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--edges", type=int, default=EDGES, help="sent through a gateway; 0: none")
    options = parser.parse_args()
    console = wide_console()
    for table in tables(options.requests, options.edges):
        console.print(table)


if __name__ == "__main__":
    main()
