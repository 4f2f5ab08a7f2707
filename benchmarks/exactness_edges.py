"""Requests that just fit into a context, sent through a real gateway: does what was promised hold?

Each context has a model of its own with all variants, so that the first of its requests is decided
without an engine, the others with one that just holds them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
from rich.table import Table

from benchmarks.exactness_requests import Case
from tests.support.harness import configuration, model, real_variant, running_gateway
from trio_gateway.models.need.bounds import MARGIN_TOKENS

# Reading a long prompt takes an engine half a minute, so fewer of them are long.
SHARES = (0.48, 0.28, 0.16, 0.08)
ANSWER_TOKENS = 1
LIMIT_S = 600.0


class Edge(NamedTuple):
    """`need`: as the truth has it."""

    context: int
    case: Case

    @property
    def need(self) -> int:
        return self.case.truth + ANSWER_TOKENS + MARGIN_TOKENS


def nearest(cases: Sequence[Case], contexts: Sequence[int], count: int) -> list[Edge]:
    """For each context those that it just holds, the nearest last."""
    edges: list[Edge] = []
    for context, share in zip(contexts, SHARES, strict=True):
        # `usage` is the sum of several prompts, which no need can be held against.
        single = [Edge(context, c) for c in cases if not isinstance(c.fields.prompt, list)]
        below = sorted((e for e in single if e.need <= context), key=lambda e: e.need)
        edges += below[-max(round(count * share), 1) :]
    return edges


def table(edges: Sequence[Edge], contexts: Sequence[int]) -> Table:
    shown = Table(title=f"{len(edges)} requests just below a context's edge, a real gateway")
    for heading in ("Context", "Request", "true need", "X-Gateway-Need", "Variant", "Status"):
        shown.add_column(heading, justify="left" if heading == "Request" else "right")
    for heading in ("usage", "over usage", "Decision"):
        shown.add_column(heading, justify="left" if heading == "Decision" else "right")
    variants = [real_variant(context) for context in contexts]
    # Without room to grow: the engine that is started is to be the one that just holds it.
    models = [model(f"edge-{context}", *variants, headroom="0") for context in contexts]
    config = configuration(*models, kv_carryover="false")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_gateway(Path(folder), config, verbose=False) as gateway,
        gateway.client(timeout_s=LIMIT_S) as client,
    ):
        for edge in edges:
            shown.add_row(*_row(client, edge))
    return shown


def _row(client: httpx.Client, edge: Edge) -> list[str]:
    case = edge.case
    plain = {k: v for k, v in case.request.items() if not k.startswith("max_")}
    body = {**plain, "model": f"edge-{edge.context}", "max_tokens": ANSWER_TOKENS}
    response = client.post(f"/v1/{case.endpoint}", json=body)
    used = over = ""
    if response.status_code == 200:
        tokens = int(response.json()["usage"]["prompt_tokens"])
        used = str(tokens)
        need = int(response.headers["X-Gateway-Need"])
        over = f"{need - ANSWER_TOKENS - MARGIN_TOKENS - tokens:+d}"
    named = ("X-Gateway-Need", "X-Gateway-Variant", "X-Gateway-Decision")
    need_said, variant, decision = (response.headers.get(name, "") for name in named)
    return [
        str(edge.context), case.shape, str(edge.need), need_said, variant,
        str(response.status_code), used, over, decision.partition(";")[0],
    ]  # fmt: skip
