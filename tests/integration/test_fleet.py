"""Two gateways that offer each other's models, as two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.support.harness import (
    CLIENT_KEY,
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    fake_variant,
    free_port,
    model,
    running_gateway,
)
from tests.support.patience import eventually

OF_BOX1, OF_BOX2 = "tg-of-box1-0123456789", "tg-of-box2-0123456789"


def box(own: str, port: int, peer: str, peer_port: int, its_key: str, peer_key: str) -> str:
    """`its_key`: what it shows the other one; `peer_key`: what that shows it."""
    keys = (
        f'{{ {{ name = "alice", key = "{CLIENT_KEY}", admin = true }}, '
        f'{{ name = "{peer}", key = "{peer_key}", forwards = true }} }}'
    )
    entry = (
        f'{{ name = "{peer}", models = "all", urls = "http://127.0.0.1:{peer_port}", '
        f'api_key = "{its_key}", health_interval = 0.2 }}'
    )
    return configuration(own, entry, listen=f'"127.0.0.1:{port}"', api_keys=keys)


def asked(gateway: GatewayProcess, path: str, body: Any = None, **more: str) -> httpx.Response:
    with gateway.client() as client:
        client.headers.update({"Authorization": f"Bearer {CLIENT_KEY}", **more})
        return client.get(path) if body is None else client.post(path, json=body)


def listed(gateway: GatewayProcess, path: str = "/v1/models") -> dict[str, Any]:
    found = asked(gateway, path).json()
    return {row["id"]: row for row in found["data"]}


def away(gateway: GatewayProcess) -> bool:
    (row,) = asked(gateway, "/gateway/peers").json()["peers"]
    return row["fault"] is not None


def test_each_has_the_other_s_models_and_counts_the_person(tmp_path: Path) -> None:
    folders = [tmp_path / "box1", tmp_path / "box2"]
    for folder in folders:
        folder.mkdir()
    ports = free_port(), free_port()
    small, (p1, p2) = fake_model("small"), ports
    big = model("big", fake_variant(), fake_variant(context=16384), aliases='{ "large" }')
    first = box(small, p1, "box2", p2, OF_BOX1, OF_BOX2)
    with running_gateway(folders[0], first) as box1:
        assert set(listed(box1)) == {"small"}  # it runs without the other one
        with running_gateway(folders[1], box(big, p2, "box1", p1, OF_BOX2, OF_BOX1)) as box2:
            assert eventually(lambda: "big" in listed(box1), 20)
            there = listed(box1)["big"]
            assert (there["contexts"], there["from"], there["loaded"]) == (
                [4096, 16384],
                "box2",
                False,
            )
            # None echoes what it has from the other one.
            assert set(listed(box2)) == {"small", "big"}
            assert set(listed(box2, "/v1/models?own=true")) == {"big"}

            batch = {"X-Gateway-Priority": "batch"}
            answer = asked(box1, "/v1/chat/completions", chat_body("large", "x " * 3000), **batch)
            assert answer.status_code == 200
            assert eventually(lambda: listed(box1)["big"]["loaded"], 20)
            (row,) = asked(box2, "/gateway/requests").json()["requests"]
            assert (row["client"], row["key"]) == ("box1/alice", "box1")
            assert row["id"] == answer.headers["X-Gateway-Request-Id"]
            assert (row["model"], row["context"], row["priority"]) == ("big", 16384, "batch")
            (model_row,) = (
                found
                for found in asked(box1, "/gateway/models").json()["models"]
                if found["name"] == "big"
            )
            assert (model_row["from"], model_row["state"]) == ("box2", "loaded")
            loads = asked(box1, "/gateway/models/big/load", {})
            assert loads.json()["error"]["code"] == "model_is_elsewhere"
        gone = asked(box1, "/v1/chat/completions", chat_body("big"))
        assert (gone.status_code, gone.json()["error"]["code"]) == (502, "engine_failed")
        assert "big" in listed(box1)
        assert eventually(lambda: away(box1), 20)
        command = [
            sys.executable,
            "-m",
            "trio_gateway",
            "status",
            "-c",
            str(folders[0] / "gateway.lua"),
        ]
        env = {
            **os.environ,
            "TRIO_GATEWAY_KEY": CLIENT_KEY,
            "XDG_STATE_HOME": str(folders[0] / "state"),
        }
        said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        assert f"box2 (http://127.0.0.1:{p2}): it does not answer; still listed: big." in said
        assert OF_BOX1 not in box1.log
