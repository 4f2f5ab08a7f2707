"""A real gateway and a real engine on a device that another program takes: a file says what the
device has (`trio_gateway/hardware/recorded.py`)."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import (
    GatewayProcess,
    chat_body,
    configuration,
    model,
    real_variant,
    running_gateway,
)
from tests.support.patience import eventually

GIB = 2**30


class Device:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.is_free()

    def is_free(self) -> None:
        self._write(GIB, [])

    def is_taken(self, by: str) -> None:
        held = GIB - 50 * 2**20
        self._write(GIB - held, [{"pid": os.getpid(), "name": by, "held_bytes": held}])

    def _write(self, free: int, holders: list[dict[str, object]]) -> None:
        described = {
            "id": "cuda:0", "total_bytes": GIB, "free_bytes": free, "holders": holders,
        }  # fmt: skip
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps([described]))
        written.replace(self._file)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    file = tmp_path / "devices.json"
    monkeypatch.setenv("TRIO_GATEWAY_DEVICES_FILE", str(file))
    return Device(file)


@pytest.fixture
def gateway(tmp_path: Path, device: Device) -> Iterator[GatewayProcess]:
    config = configuration(model("smollm2", real_variant(1024)), engine_idle_timeout="600")
    with running_gateway(tmp_path, config + 'pools = { primary = { memory = "auto" } }') as running:
        yield running


def test_another_program_takes_the_device_and_gives_it_back(
    gateway: GatewayProcess, device: Device
) -> None:
    answers: list[int] = []

    def ask() -> None:
        with gateway.client() as client:
            body = chat_body("smollm2", max_tokens=2)
            answers.append(client.post("/v1/chat/completions", json=body).status_code)

    def engines() -> list[object]:
        with gateway.client() as client:
            found: list[object] = client.get("/gateway/engines").json()["engines"]
            return found

    def sentences() -> list[str]:
        with gateway.client() as client:
            return [t["sentence"] for t in client.get("/gateway/queue").json()["tickets"]]

    ask()
    assert len(engines()) == 1
    device.is_taken("ComfyUI")
    assert eventually(lambda: not engines(), 10)
    gateway.wait_for_line(r"other programs hold memory of the pool primary \(ComfyUI 974.0 MiB\)")

    waiting = threading.Thread(target=ask)
    waiting.start()
    assert eventually(lambda: any("ComfyUI 974.0 MiB" in told for told in sentences()), 10)
    assert not engines()
    device.is_free()
    waiting.join(20)
    assert answers == [200, 200]
