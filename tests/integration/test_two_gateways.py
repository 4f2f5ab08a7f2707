"""A gateway as the `remote` engine of another, with the real engine at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.harness import (
    CLIENT_KEY,
    GatewayProcess,
    chat_body,
    configuration,
    fake_variant,
    free_port,
    model,
    real_variant,
    running_gateway,
)
from tests.support.patience import eventually

CONTEXT = 2048


def remote(name: str, *urls: str, context: int = CONTEXT, **fields: str) -> str:
    array = "{" + ", ".join(f'"{url}"' for url in urls) + "}"
    return model(
        name, f"{{ context = {context} }}", engine="presets.engines.remote", urls=array,
        served_name='"inner"', aliases='{ "other" }', **fields,
    )  # fmt: skip


def test_a_gateway_serves_what_another_gateway_runs(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    behind = configuration(model("inner", real_variant(CONTEXT)))
    dead = f"http://127.0.0.1:{free_port()}"
    with running_gateway(inside, behind) as inner:
        front = configuration(remote("m", dead, inner.base_url))
        with running_gateway(outside, front) as outer:
            whole = outer.chat("other", "Hi", max_tokens=2)
            assert whole.status_code == 200
            assert whole.json()["usage"]["completion_tokens"] == 2
            assert len(whole.headers.get_list("X-Gateway-Variant")) == 1
            body = chat_body("m", stream=True, max_tokens=2)
            with outer.client() as client:
                text = client.post("/v1/chat/completions", json=body).text
            assert text.rstrip().endswith("data: [DONE]")
            # What does not fit is refused by the one that knows the context first: the outer.
            status, code, _ = outer.error_of("m", text="x " * 3 * CONTEXT)
            assert (status, code) == (400, "context_length_exceeded")


def test_gateways_that_lead_to_each_other_refuse_what_goes_in_a_circle(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    folders = [tmp_path / "a", tmp_path / "b"]
    listens = [f'"127.0.0.1:{port}"' for port in ports]
    configs = [
        configuration(remote("inner", url), listen=listen)
        for url, listen in zip(reversed(urls), listens, strict=True)
    ]
    for folder in folders:
        folder.mkdir()
    with (
        running_gateway(folders[0], configs[0]) as a,
        running_gateway(folders[1], configs[1]),
    ):
        status, code, message = a.error_of("inner")
        assert (status, code) == (508, "gateway_loop")
        assert "by way of 1 more" in message
        assert "`urls`" in message


def test_gateways_that_share_the_work_say_what_they_have_and_replace_each_other(
    tmp_path: Path,
) -> None:
    """Before the first byte the other one answers; after it the stream ends with an error."""
    slow = model("inner", fake_variant("--interval-s", "0.01"))
    # A key of another gateway, with no rights but to ask for others.
    behind = configuration(slow, api_keys=f'{{ {{ key = "{CLIENT_KEY}", forwards = true }} }}')
    folders = [tmp_path / name for name in ("a", "b", "front")]
    for folder in folders:
        folder.mkdir()
    with (
        running_gateway(folders[0], behind) as a,
        running_gateway(folders[1], behind) as b,
    ):
        shared = remote(
            "m", a.base_url, b.base_url, context=4096,
            balance='"least_loaded"', gateway="true", api_key=f'"{CLIENT_KEY}"',
            health_interval="1",
        )  # fmt: skip
        with running_gateway(folders[2], configuration(shared)) as outer:
            with outer.streaming("m") as pieces:
                # The first look has 0.25 s for it, the next one comes 5 s later.
                assert eventually(
                    lambda: all("peer_waiting" in site for site in sites_of(outer)), 30
                )
                busy = [site.get("requests", 0) for site in sites_of(outer)]
                assert sorted(busy) == [0, 1]
                home, other = (a, b) if busy[0] else (b, a)
                home.descendants()
                home.process.kill()
                rest = b"".join(pieces)
            assert b"[DONE]" not in rest
            assert b"engine_failed" in rest.strip().split(b"\n\n")[-1]
            # The same conversation, which was at the one that is gone.
            assert outer.chat("m").status_code == 200
            works = {site["url"]: site["state"] == "works" for site in sites_of(outer)}
            assert works == {home.base_url: False, other.base_url: True}
            home.wait()
            other.process.kill()
            other.wait()
            status, code, message = outer.error_of("m")
            assert (status, code) == (502, "engine_failed")
            assert a.base_url in message
            assert b.base_url in message


def sites_of(gateway: GatewayProcess) -> list[dict[str, Any]]:
    with gateway.client() as client:
        (row,) = client.get("/gateway/engines").json()["engines"]
    found: list[dict[str, Any]] = row["sites"]
    return found
