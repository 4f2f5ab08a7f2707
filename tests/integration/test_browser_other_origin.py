"""A real browser: what a page of another origin can read of the gateway, and what it can start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browsing import PageServer, visit, visit_rebound
from tests.support.harness import GatewayProcess, configuration, fake_model, running_gateway
from tests.support.patience import eventually

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

SETTLE_S = 0.5


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    """`busy` has an engine and `idle` has none, in pools of their own. Whatever a page sends
    is no error in the gateway's own log."""
    config = configuration(
        fake_model("busy"),
        fake_model("idle", engine="presets.engines.llamacpp_secondary"),
    )
    with running_gateway(tmp_path, config) as running:
        assert running.chat("busy").status_code == 200
        yield running
        assert " ERROR " not in running.log, running.log


@pytest.fixture
def pages() -> Iterator[PageServer]:
    server = PageServer()
    yield server
    server.close()


def port_of(gateway: GatewayProcess) -> int:
    return int(gateway.base_url.rpartition(":")[2])


def assert_nothing_read(report: dict[str, Any]) -> None:
    known = ("busy", "idle", "tok", "opened", '"ok"')
    read = {
        name: result["read"]
        for name, result in report["tries"].items()
        if any(word in result.get("read", "") for word in known)
    }
    assert not read


def assert_nothing_triggered(gateway: GatewayProcess, busy: Any) -> None:
    """Of the engines, only the one from before is there, and no other has been started. A start
    that a request caused is logged before that request is answered; the beacon is not waited for
    by the page, so a moment is left for it."""
    assert not eventually(lambda: " idle:" in gateway.log, within_s=SETTLE_S), gateway.log
    assert [p.pid for p in gateway.engines()] == [busy.pid]


def test_a_page_of_another_origin_can_neither_read_nor_trigger_anything(
    gateway: GatewayProcess, pages: PageServer
) -> None:
    busy = gateway.engine_of("busy")
    report = visit(pages, "evil.test", gateway.base_url)
    assert report["origin"] == f"http://evil.test:{pages.port}"
    assert len(report["tries"]) > 20
    assert_nothing_read(report)
    assert_nothing_triggered(gateway, busy)


def test_a_name_rebound_to_the_gateway_can_neither_read_nor_trigger_anything(
    gateway: GatewayProcess, pages: PageServer
) -> None:
    """To the browser the page and the gateway are one origin: only the Host header tells."""
    busy = gateway.engine_of("busy")
    report = visit_rebound(pages, port_of(gateway))
    assert report["origin"] == f"http://evil.test:{port_of(gateway)}"
    assert_nothing_read(report)
    assert_nothing_triggered(gateway, busy)


def test_a_page_of_this_machine_may_read_and_chat(
    gateway: GatewayProcess, pages: PageServer
) -> None:
    """So the same tries do reach the gateway where it lets them."""
    tries = visit(pages, "localhost", gateway.base_url)["tries"]
    assert '"idle"' in tries["fetch of the models"]["read"]
    assert '"idle"' in tries["fetch that needs a preflight"]["read"]
    assert "tok" in tries["chat as JSON"]["read"]
    assert gateway.engine_of("idle").is_running()
