"""The dashboard, the alerts and the list of metrics: what they name is in `/metrics`."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.asking import CHAT, Clock, chat
from tests.support.observe import NAME, queries, unknown_names
from tests.support.schema_values import config, model
from tests.support.stack import running_stack

DOCS = Path(__file__).parents[2] / "docs"


async def test_every_metric_that_is_named_exists(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        await stack.post(CHAT, chat())
        page = (await stack.get("/metrics")).content.decode()
    assert unknown_names(page) == set()


async def test_every_metric_is_listed(autojump_clock: Clock) -> None:
    async with running_stack(config(model("m"))) as stack:
        page = (await stack.get("/metrics")).content.decode()
    families = re.findall(r"^# TYPE trio_gateway_(\S+)", page, re.MULTILINE)
    text = (DOCS / "observability.md").read_text()
    assert {name for name in families if f"`{name}`" not in text} == set()


def test_the_dashboard_asks_for_something_in_each_panel() -> None:
    asked = queries()
    assert len(asked) > 20
    assert all(NAME.search(query) or "process_" in query for _, query in asked)
