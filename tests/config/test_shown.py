"""The configuration as it may be shown: no secret of any kind is in it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tests.support.schema_values import config, model, variant
from trio_gateway.config.access_schema import AccessConfig, ApiKey, TlsConfig
from trio_gateway.config.engine_types import ENGINE_TYPES
from trio_gateway.config.schema import (
    EngineOptions,
    GatewayConfig,
    RewriteConfig,
    Secret,
    TracesConfig,
)
from trio_gateway.config.shown import HIDDEN, hider, shown_configuration

SECRET = "s3cr3t-value-0123"


def text_of(given: GatewayConfig) -> str:
    return json.dumps(shown_configuration(given), ensure_ascii=False)


@pytest.mark.parametrize(
    "args",
    [
        ("--api-key", SECRET),
        (f"--api-key={SECRET}",),
        ("--hf-token", SECRET),
        ("--hft-token", SECRET),
        ("--password", SECRET),
        ("--header", f"Authorization: Bearer {SECRET}"),
        ("--url", f"https://me:{SECRET}@example.org/x"),
        ("--url", f"https://example.org/x?sig={SECRET}"),
        ("run", "-e", f"HF_TOKEN={SECRET}", "image"),
        (f"--env=WANDB_API_KEY={SECRET}",),
        (f"-eAWS_SECRET={SECRET}",),
        ("-hft", SECRET),
        ("--hf-token", f"-{SECRET}"),
    ],
    ids=lambda args: " ".join(args).replace(SECRET, "…"),
)
def test_arguments(args: tuple[str, ...]) -> None:
    given = config(model("m", variant(args=("-c", "4096", *args))))
    shown = text_of(given)
    assert SECRET not in shown
    assert "4096" in shown


def test_keys_hashes_and_what_engines_are_given() -> None:
    keys = (ApiKey(name="me", secret=SECRET), ApiKey(name="you", secret=f"scrypt:{SECRET}"))
    own = variant(
        env={"HF_TOKEN": SECRET, "PLAIN": SECRET},
        inherited_options={"LLAMA_API_KEY": SECRET},
        options=EngineOptions(api_key=Secret(SECRET)),
    )
    tls = TlsConfig(certificate=Path("/etc/cert.pem"), key=Path("/etc/key.pem"))
    given = config(model("m", own), access=AccessConfig(api_keys=keys), tls=tls)
    shown = text_of(given)
    assert SECRET not in shown
    for part in ('"me"', '"you"', "HF_TOKEN", "PLAIN", "/etc/key.pem", HIDDEN):
        assert part in shown


def test_what_is_written_into_requests() -> None:
    rewrite = RewriteConfig(set={"metadata": b'{"token": "%s", "plain": 7}' % SECRET.encode()})
    shown = text_of(config(model("m", variant(), rewrite=rewrite)))
    assert SECRET not in shown
    assert '"plain": 7' in shown


def test_what_follows_an_option_with_its_own_value_is_shown() -> None:
    shown = text_of(config(model("m", variant(args=(f"--hf-token={SECRET}", "image")))))
    assert SECRET not in shown
    assert '"image"' in shown


def test_a_server_elsewhere_with_a_password_in_its_address() -> None:
    options = EngineOptions(urls=(f"https://user:{SECRET}@there.example/v1?token={SECRET}",))
    there = variant(binary="", args=(), options=options)
    given = config(model("m", there, engine=ENGINE_TYPES["remote"]))
    shown = text_of(given)
    assert SECRET not in shown
    assert "there.example" in shown


def test_everything_else_is_there() -> None:
    given = config(model("m", variant(context=4096), aliases=("also",)), queue_timeout_s=12.5)
    shown = shown_configuration(given)
    assert shown["server"]["queue_timeout_s"] == 12.5
    (row,) = shown["models"]
    assert (row["name"], row["aliases"], row["engine"]) == ("m", ["also"], "llama.cpp")
    assert row["variants"][0]["context"] == 4096
    assert set(shown["pools"]) == {"primary", "secondary"}


def test_it_is_json_whatever_is_in_it() -> None:
    given = config(model("m", variant()), queue_timeout_s=float("inf"))
    assert (
        json.loads(msgspec.json.encode(shown_configuration(given)))["server"]["queue_timeout_s"]
        == "never"
    )


def test_what_a_collector_is_sent() -> None:
    url = f"https://collector.example.org/v1/traces?key={SECRET}"
    traces = TracesConfig(endpoint=url, headers={"X-Team": Secret(SECRET)}, sample=0.5)
    notes = hider(given := config(model("m"), traces=traces))
    shown = shown_configuration(given)["server"]["traces"]
    assert shown == {
        "endpoint": f"https://collector.example.org/v1/traces?key={HIDDEN}",
        "headers": {"X-Team": HIDDEN},
        "sample": 0.5,
    }
    assert SECRET not in notes(f"about {SECRET}")
