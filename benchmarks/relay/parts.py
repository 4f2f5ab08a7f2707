"""The parts of `nox -s bench` about relaying: each gives its tables and its ratios."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import RenderableType

from benchmarks.relay import crowd, limits, measure, tables
from benchmarks.relay.figures import Ratios, Table
from benchmarks.relay.forms import SMALL, Form, all_forms
from benchmarks.relay.measure import TURNS, Effort
from benchmarks.relay.targets import PROXIES, RAW, SWAP, Field, Target


class Result(NamedTuple):
    shown: Sequence[RenderableType]
    ratios: dict[str, Ratios]  # by the table's name


@contextmanager
def _field() -> Iterator[Field]:
    with tempfile.TemporaryDirectory() as folder, Field(Path(folder)) as field:
        yield field


def relay(effort: Effort) -> Result:
    """Every proxy, with a small chat."""
    table = Table("relay")
    with _field() as field:
        targets = [field.direct(), *(field.proxy(name, SMALL) for name in PROXIES)]
        others = {
            "aiohttp (not installed: the extra `bench`)": field.aiohttp(),
            f"{SWAP} (not on PATH)": field.llama_swap(),
        }
        targets += [target for target in others.values() if target is not None]
        targets.append(field.gateway(SMALL))
        asyncio.run(measure.rounds(table, targets, SMALL, effort))
    notes = [f"Left out: {name}." for name, target in others.items() if target is None]
    shown = (tables.absolute(table), tables.relative(table), tables.memory_to_reach())
    return Result([*shown, *notes], {table.name: table.ratios()})


def relay_forms(effort: Effort) -> Result:
    """The gateway beside `raw`, once for each form of a request, with less effort."""
    less = replace(
        effort,
        requests=max(TURNS, effort.requests // 2),
        waves=max(2, effort.waves // 2),
        paced_chunks=max(50, effort.paced_chunks // 2),
        memory_requests=0,
    )
    measured = [_form(form, less) for form in all_forms()]
    shown = (
        tables.absolutes(measured, "relay_forms"),
        tables.together(measured, "relay_forms: the gateway's ratios to `raw`"),
    )
    return Result(shown, {table.name: table.ratios() for table in measured})


def _form(form: Form, effort: Effort) -> Table:
    table = Table(form.name)
    with _field() as field:
        targets: list[Target] = [field.proxy(RAW, form), field.gateway(form)]
        asyncio.run(measure.rounds(table, targets, form, effort))
    return table


def relay_crowd(effort: Effort) -> Result:
    """A small request among many, and paced streams beside one that bursts."""
    crowd.allow_many_files()
    with _field() as field:
        targets = [field.direct(), field.proxy(RAW, SMALL), field.gateway(SMALL, **crowd.SERVER)]
        results = asyncio.run(crowd.measure(targets, effort))
    return Result([crowd.table(results)], {"relay_crowd": crowd.ratios(results)})


def relay_limits(effort: Effort) -> Result:
    """How far one process goes, with more and more clients and streams."""
    crowd.allow_many_files()
    results = {}
    with _field() as field:
        for target in (field.proxy(RAW, SMALL), field.gateway(SMALL, **crowd.SERVER)):
            results[target.name] = asyncio.run(limits.measure(target, effort))
    return Result([limits.table(results)], {})


PARTS: dict[str, Callable[[Effort], Result]] = {
    "relay": relay,
    "relay_forms": relay_forms,
    "relay_crowd": relay_crowd,
    "relay_limits": relay_limits,
}
