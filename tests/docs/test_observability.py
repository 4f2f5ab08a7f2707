"""The dashboard, the alerts and the list of metrics: what they name is in `/metrics`."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.asking import CHAT, Clock, chat
from tests.support.observe import NAME, queries, unknown_names
from tests.support.schema_values import config, model
from tests.support.stack import running_stack
from trio_gateway.server.feed.logs import Logs
from trio_gateway.server.metrics.families import Counted, Measured, Spreading
from trio_gateway.server.metrics.gateway_metrics import GatewayMetrics
from trio_gateway.server.metrics.parts import Parts
from trio_gateway.server.traces.tally import TraceTally

DOCS = Path(__file__).parents[2] / "docs"
Facts = tuple[str, tuple[str, ...]]  # the type, and the labels


async def test_every_metric_that_is_named_exists(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        page = (await stack.get("/metrics")).content.decode()
    assert unknown_names(page) == set()


async def test_every_metric_is_listed_with_its_type_and_labels(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        gateway = stack.gateway
        page = (await stack.get("/metrics")).content.decode()
        parts = Parts(
            gateway.manager, gateway.book, gateway.budget, gateway.feed,
            Logs(gateway.bus, gateway.manager.lines), gateway.history, None, TraceTally(),
            gateway.peers,
        )  # fmt: skip
        made = dict(map(_facts, GatewayMetrics(parts, 1.0).collect()))
    made["build_info"] = ("info", ("version",))
    assert made == _listed()
    # And what is compared with the list is all that there is.
    types = {
        found.name.removeprefix("trio_gateway_"): found.type
        for found in text_string_to_metric_families(page)
        if found.name.startswith("trio_gateway_")
    }
    types["build_info"] = "info"  # Prometheus' own format has no such type
    assert types == {name.removesuffix("_total"): kind for name, (kind, _) in made.items()}


def _facts(made: Counted | Spreading | Measured) -> tuple[str, Facts]:
    match made:
        case Counted():
            return f"{made.name}_total", ("counter", tuple(made.labels))
        case Spreading():
            return made.name, ("histogram", tuple(made.labels))
        case Measured():
            return made.name, ("gauge", tuple(made.labels))


def _listed() -> dict[str, Facts]:
    """As the table has them."""
    text = (DOCS / "observability.md").read_text()
    table = text.partition("| name | type | labels | what it is |\n")[2].partition("\n\n")[0]
    found = dict[str, Facts]()
    for row in table.splitlines()[1:]:
        names, kind, labels = row.removeprefix("|").split("|")[:3]
        words = (kind.strip(), tuple(re.findall(r"`(\w+)`", labels)))
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), words)
    return found


def test_the_dashboard_asks_for_something_in_each_panel() -> None:
    asked = queries()
    assert len(asked) > 20
    assert all(NAME.search(query) or "process_" in query for _, query in asked)
