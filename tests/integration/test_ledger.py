"""What one gateway has measured, the next one says before it has loaded anything."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from tests.support.harness import (
    GatewayProcess,
    configuration,
    fake_variant,
    model,
    running_gateway,
)
from tests.support.patience import eventually


def the_variant(gateway: GatewayProcess) -> dict[str, Any]:
    with gateway.client() as client:
        row: dict[str, Any] = client.get("/gateway/models").json()["models"][0]["variants"][0]
    return row


def test_what_was_measured_outlives_a_gateway_that_is_killed(tmp_path: Path) -> None:
    text = configuration(model("m", fake_variant()))
    ledger = tmp_path / "state" / "trio-gateway" / "ledger.json"
    with running_gateway(tmp_path, text) as first:
        assert the_variant(first)["load_is"] is None
        assert first.chat("m", "Hi").status_code == 200
        assert eventually(
            lambda: ledger.exists() and "memory_bytes" in ledger.read_text(), within_s=10.0
        )
        first.send_signal(signal.SIGKILL)
        first.wait()
    with running_gateway(tmp_path, text) as second:
        known = the_variant(second)
        assert (known["memory_is"], known["load_is"]) == ("measured", "measured")
        assert known["load_s"] > 0
